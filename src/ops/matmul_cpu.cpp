// One serial call of the stream's GEMM library per tile of c.
#include "ops/elementwise.hpp"
#include "ops/matmul.hpp"
#include "ops/matmul_tiles.hpp"

namespace red::ops {
namespace {

constexpr int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

/// The size of `num` near-equal pieces of n, a multiple of 16.
int64_t piece(int64_t n, int64_t num) {
  return ceil_div(ceil_div(n, num), 16) * 16;
}

}  // namespace

MatmulTiles matmul_tiles(int64_t m, int64_t n, int64_t k) {
  // A tile takes about a millisecond of one core, and there are tiles enough for the threads to end together;
  // below 64 rows and columns a GEMM spends its time on packing.
  constexpr double most_flop = 128e6, least_flop = 4e6;
  constexpr int64_t least_side = 64;
  const double total = 2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k);
  const double flop = std::clamp(total / 32, least_flop, most_flop);
  const auto wanted = static_cast<int64_t>(total / flop) + 1;
  int64_t num_rows = 1, num_cols = 1;
  while (num_rows * num_cols < wanted) {
    const bool rows_longer = m * num_cols >= n * num_rows;
    const bool rows_can = m > least_side * num_rows, cols_can = n > least_side * num_cols;
    if (!rows_can && !cols_can) break;
    ++((rows_longer ? rows_can : !cols_can) ? num_rows : num_cols);
  }
  const int64_t rows = piece(m, num_rows), cols = piece(n, num_cols);
  return {rows, cols, ceil_div(m, rows), ceil_div(n, cols)};
}

void matmul(Stream& stream, const Tensor& c, const Tensor& a, Transpose transpose_a, const Tensor& b,
            Transpose transpose_b, float alpha, float beta) {
  const bool ta = transpose_a == Transpose::yes, tb = transpose_b == Transpose::yes;
  const int64_t m = c.rows, n = c.cols, k = ta ? a.rows : a.cols;
  RED_CHECK((ta ? a.cols : a.rows) == m && (tb ? b.rows : b.cols) == n && (tb ? b.cols : b.rows) == k,
            "c ({}, {}), a ({}, {}){}, b ({}, {}){}", m, n, a.rows, a.cols, ta ? "^T" : "", b.rows, b.cols,
            tb ? "^T" : "");
  if (m == 0 || n == 0) return;
  const float* a_data = a.as<float>();
  const float* b_data = b.as<float>();
  float* c_data = c.as<float>();
  // BLAS wants leading dims of at least 1, of empty matrices too.
  const int64_t lda = std::max<int64_t>(1, a.row_stride), ldb = std::max<int64_t>(1, b.row_stride);
  const GemmFunction sgemm = stream.gemm().sgemm;
  const MatmulTiles tiles = matmul_tiles(m, n, k);
  stream.parallel_for(tiles.count(), [&](int64_t i) {
    // Neighbouring tasks share columns of b: its packed panel is still in the shared cache.
    const int64_t row = i % tiles.num_rows * tiles.rows, col = i / tiles.num_rows * tiles.cols;
    const int64_t rows = std::min(tiles.rows, m - row), cols = std::min(tiles.cols, n - col);
    sgemm(ta, tb, rows, cols, k, alpha, a_data + (ta ? row : row * a.row_stride), lda,
          b_data + (tb ? col * b.row_stride : col), ldb, beta, c_data + row * c.row_stride + col,
          c.row_stride);
  });
}

}  // namespace red::ops
