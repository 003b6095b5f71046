// Blocks of 32 by 32 of c, (rows, 32 steps) by (32 steps, cols), and their copies. A panel of b, 32 columns,
// stays in the first-level cache while all rows go by, so what bounds them is arithmetic: 2 x 32^3 operations
// a step, by AMX or by dot products of pairs. A copy reads and writes each element once. Panels:
// device/avx512_bf16.hpp.
#include "ops/bf16_blocks.hpp"

#include <algorithm>

#include "base/check.hpp"
#include "device/amx_tiles.hpp"

#if defined(__x86_64__)

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // in GCC 12's own AVX-512 header
#endif

namespace red::ops::blocks {

namespace {

/// Its columns stay in the first-level cache while all rows of a pass.
const bf16* panel_of(const Panels& b, int64_t col) {
  return b.data + col / avx512::kBlock * b.size + b.first * avx512::kStep;
}

RED_AMX void multiply_by_tiles(float* c, int64_t c_stride, const bf16* a, int64_t a_stride, const Panels& b,
                               int64_t rows, int64_t cols, int64_t steps, bool add) {
  const red::amx::Tiles tiles;
  const avx512::Sum sum = add ? avx512::Sum::add : avx512::Sum::begin;
  for (int64_t col = 0; col < cols; col += avx512::kBlock) {
    const bf16* panel = panel_of(b, col);
    for (int64_t row = 0; row < rows; row += avx512::kBlock)
      red::amx::multiply(c + row * c_stride + col, c_stride, a + row * a_stride, a_stride, panel, steps, sum);
  }
}

RED_AVX512_BF16 void multiply_by_pairs(float* c, int64_t c_stride, const bf16* a, int64_t a_stride,
                                       const Panels& b, int64_t rows, int64_t cols, int64_t steps, bool add) {
  const avx512::Sum sum = add ? avx512::Sum::add : avx512::Sum::begin;
  for (int64_t col = 0; col < cols; col += avx512::kBlock) {
    const bf16* panel = panel_of(b, col);
    for (int64_t row = 0; row < rows; row += avx512::kBlock) {
      avx512::multiply_by_pairs(c + row * c_stride + col, c_stride, a + row * a_stride, a_stride, panel,
                                steps, sum);
    }
  }
}

}  // namespace

Multiply multiply_by(bool amx) {
  return amx ? multiply_by_tiles : multiply_by_pairs;
}

RED_AVX512_BF16 void pack(bf16* panels, const bf16* source, int64_t stride, int64_t rows, int64_t cols) {
  avx512::pack_panels(panels, source, stride, rows, cols);
}

RED_AVX512_BF16 void pack_transposed(bf16* panels, const bf16* source, int64_t stride, int64_t rows,
                                     int64_t cols) {
  avx512::pack_transposed_panels(panels, source, stride, rows, cols);
}

RED_AVX512_BF16 void copy(bf16* to, int64_t to_stride, const bf16* source, int64_t stride, int64_t rows,
                          int64_t cols) {
  for (int64_t i = 0; i < rows; i += avx512::kBlock) {
    avx512::copy_rows(to + i * to_stride, to_stride, source + i * stride, stride, rows - i, cols);
  }
}

RED_AVX512_BF16 void copy_transposed(bf16* to, int64_t to_stride, const bf16* source, int64_t stride,
                                     int64_t rows, int64_t cols) {
  for (int64_t i = 0; i < rows; i += avx512::kBlock) {
    avx512::copy_transposed(to + i * to_stride, to_stride, source + i, stride, rows - i, cols);
  }
}

RED_AVX512_BF16 void round(bf16* to, int64_t to_stride, const float* from, int64_t stride, int64_t rows,
                           int64_t cols) {
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < cols; j += 32) {
      const float* x = from + i * stride + j;
      const __m512bh rounded = _mm512_cvtne2ps_pbh(_mm512_loadu_ps(x + 16), _mm512_loadu_ps(x));
      _mm512_storeu_si512(to + i * to_stride + j, reinterpret_cast<__m512i>(rounded));
    }
  }
}

}  // namespace red::ops::blocks

#endif
