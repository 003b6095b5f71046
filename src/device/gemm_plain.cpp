// The fallback: blocks that fit the first-level cache, copied so that the inner loop runs along contiguous
// memory whatever the transposes. It needs nothing but a compiler, and it is what the libraries are held to.
#include <algorithm>

#include "device/gemm_libraries.hpp"

namespace red::detail {
namespace {

constexpr int64_t kBlockM = 32, kBlockN = 64, kBlockK = 64;

/// Copies rows x cols of op(x) starting at (row, col) into `out`, rows kStride elements apart.
template <int64_t kStride>
void pack(float* out, const float* x, int64_t ld, bool transpose, int64_t row, int64_t col, int64_t rows,
          int64_t cols) {
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < cols; ++j) {
      out[i * kStride + j] = transpose ? x[(col + j) * ld + row + i] : x[(row + i) * ld + col + j];
    }
  }
}

/// acc (rows, kBlockN) += a (rows, depth) b (depth, kBlockN)
void multiply_block(float* acc, const float* a, const float* b, int64_t rows, int64_t depth) {
  for (int64_t i = 0; i < rows; ++i) {
    float* out = acc + i * kBlockN;
    for (int64_t p = 0; p < depth; ++p) {
      const float factor = a[i * kBlockK + p];
      const float* row = b + p * kBlockN;
      for (int64_t j = 0; j < kBlockN; ++j) out[j] += factor * row[j];
    }
  }
}

}  // namespace

void plain_sgemm(bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, float alpha,
                 const float* a, int64_t lda, const float* b, int64_t ldb, float beta, float* c,
                 int64_t ldc) {
  alignas(64) float packed_a[kBlockM * kBlockK];
  alignas(64) float packed_b[kBlockK * kBlockN] = {};
  alignas(64) float acc[kBlockM * kBlockN];
  for (int64_t row = 0; row < m; row += kBlockM) {
    const int64_t rows = std::min(kBlockM, m - row);
    for (int64_t col = 0; col < n; col += kBlockN) {
      const int64_t cols = std::min(kBlockN, n - col);
      std::fill(acc, acc + kBlockM * kBlockN, 0.0F);
      for (int64_t inner = 0; inner < k; inner += kBlockK) {
        const int64_t depth = std::min(kBlockK, k - inner);
        pack<kBlockK>(packed_a, a, lda, transpose_a, row, inner, rows, depth);
        pack<kBlockN>(packed_b, b, ldb, transpose_b, inner, col, depth, cols);
        multiply_block(acc, packed_a, packed_b, rows, depth);
      }
      for (int64_t i = 0; i < rows; ++i) {
        float* out = c + (row + i) * ldc + col;
        const float* sum = acc + i * kBlockN;
        for (int64_t j = 0; j < cols; ++j) out[j] = alpha * sum[j] + (beta == 0.0F ? 0.0F : beta * out[j]);
      }
    }
  }
}

}  // namespace red::detail
