// Products by cuBLASLt, which has all but two: an empty sum, and fp32 matrices with a bf16 result.
#include <algorithm>

#include "device/stream_backend_cuda.hpp"
#include "ops/elementwise.hpp"
#include "ops/matmul_search.hpp"
#include "ops/matmul_sizes.hpp"

namespace red::ops {
namespace {

constexpr int64_t kMixedElements = int64_t{2} << 20;  // of c at a time, where fp32 is rounded to bf16

struct Operands {
  const Tensor &a, &b;
  bool transpose_a, transpose_b;
  float alpha, beta;

  int64_t k() const { return transpose_a ? a.rows : a.cols; }
};

/// A row alone may have any stride; libraries want one that fits.
int64_t leading_dim(const Tensor& t) {
  return t.rows <= 1 ? std::max(t.row_stride, t.cols) : t.row_stride;
}

detail::GemmProblem problem_of(Stream& stream, const Tensor& c, const Operands& o) {
  const auto fp32_products =
      stream.gemm().choice == GemmChoice::tf32 ? detail::Fp32Products::tf32 : detail::Fp32Products::exact;
  return {.transpose_a = o.transpose_a,
          .transpose_b = o.transpose_b,
          .m = c.rows,
          .n = c.cols,
          .k = o.k(),
          .a = o.a.data,
          .lda = leading_dim(o.a),
          .b = o.b.data,
          .ldb = leading_dim(o.b),
          .c = c.data,
          .ldc = leading_dim(c),
          .ab_dtype = o.a.dtype,
          .c_dtype = c.dtype,
          .alpha = o.alpha,
          .beta = o.beta,
          .fp32_products = fp32_products};
}

void multiply(Stream& stream, const Tensor& c, const Operands& o) {
  stream.backend().gemm.multiply(stream.handle(), problem_of(stream, c, o),
                                 [&stream] { stream.synchronize(); });
}

/// c = beta c
void scale(Stream& stream, const Tensor& c, float beta) {
  if (beta == 0.0F) return fill(stream, c, 0.0F);
  if (beta == 1.0F) return;
  // As a sum of one product, of zeros.
  const ArenaScope scope(stream.scratch());
  const Tensor column = stream.scratch().allocate(c.rows, 1, c.dtype),
               row = stream.scratch().allocate(1, c.cols, c.dtype);
  fill(stream, column, 0.0F);
  fill(stream, row, 0.0F);
  multiply(stream, c, {column, row, false, false, 1.0F, beta});
}

/// fp32 a and b, bf16 c: some rows and columns of c after the other, by way of fp32.
void multiply_rounded(Stream& stream, const Tensor& c, const Operands& o) {
  const int64_t cols = std::min(c.cols, kMixedElements), rows = std::min(c.rows, kMixedElements / cols);
  const auto part = [](const Tensor& t, bool along_cols, int64_t begin, int64_t count) {
    return along_cols ? t.col_range(begin, count) : t.row_range(begin, count);
  };
  for (int64_t row = 0; row < c.rows; row += rows) {
    for (int64_t col = 0; col < c.cols; col += cols) {
      const int64_t num_rows = std::min(rows, c.rows - row), num_cols = std::min(cols, c.cols - col);
      const ArenaScope scope(stream.scratch());
      const Tensor sums = stream.scratch().allocate(num_rows, num_cols);
      const Tensor rounded = c.row_range(row, num_rows).col_range(col, num_cols);
      if (o.beta != 0.0F) copy(stream, sums, rounded);
      const Tensor a = part(o.a, o.transpose_a, row, num_rows), b = part(o.b, !o.transpose_b, col, num_cols);
      multiply(stream, sums, {a, b, o.transpose_a, o.transpose_b, o.alpha, o.beta});
      copy(stream, rounded, sums);
    }
  }
}

}  // namespace

void matmul(Stream& stream, const Tensor& c, const Tensor& a, Transpose transpose_a, const Tensor& b,
            Transpose transpose_b, float alpha, float beta) {
  const bool ta = transpose_a == Transpose::yes, tb = transpose_b == Transpose::yes;
  const auto [m, n, k] = checked_sizes(c, a, transpose_a, b, transpose_b);
  if (m == 0 || n == 0) return;
  if (k == 0) return scale(stream, c, beta);
  const Operands operands{a, b, ta, tb, alpha, beta};
  if (a.dtype == DType::fp32 && c.dtype == DType::bf16) return multiply_rounded(stream, c, operands);
  multiply(stream, c, operands);
}

std::optional<MatmulSearch> search_matmul(Stream& stream, const Tensor& c, const Tensor& a,
                                          Transpose transpose_a, const Tensor& b, Transpose transpose_b,
                                          float alpha, float beta) {
  const auto [m, n, k] = checked_sizes(c, a, transpose_a, b, transpose_b);
  if (m == 0 || n == 0 || k == 0 || (a.dtype == DType::fp32 && c.dtype == DType::bf16)) return std::nullopt;
  const Operands operands{a, b, transpose_a == Transpose::yes, transpose_b == Transpose::yes, alpha, beta};
  const detail::GemmSearch found =
      stream.backend().gemm.search(stream.handle(), problem_of(stream, c, operands));
  return MatmulSearch{found.seconds, found.tried};
}

std::size_t matmul_scratch_bytes(int, DType dtype) {
  return dtype == DType::bf16 ? Arena::rounded(static_cast<std::size_t>(kMixedElements) * sizeof(float)) : 0;
}

}  // namespace red::ops
