#include "ops/amx_products.hpp"

#include <algorithm>

#include "base/check.hpp"
#include "device/amx_tiles.hpp"

#if defined(__x86_64__)

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // in GCC 12's own AVX-512 header
#endif

namespace red::ops::amx {

RED_AMX void multiply(float* c, int64_t c_stride, const bf16* a, int64_t a_stride, const Panels& b,
                      int64_t rows, int64_t cols, int64_t steps, bool add) {
  const red::amx::Tiles tiles;
  const red::amx::Sum sum = add ? red::amx::Sum::add : red::amx::Sum::begin;
  // The columns of a panel stay in the first-level cache while all rows of a pass.
  for (int64_t col = 0; col < cols; col += red::amx::kBlock) {
    const bf16* panel = b.data + col / red::amx::kBlock * b.size + b.first * red::amx::kStep;
    for (int64_t row = 0; row < rows; row += red::amx::kBlock) {
      red::amx::multiply(c + row * c_stride + col, c_stride, a + row * a_stride, a_stride, panel, steps, sum);
    }
  }
}

RED_AMX void pack(bf16* panels, const bf16* source, int64_t stride, int64_t rows, int64_t cols) {
  red::amx::pack_panels(panels, source, stride, rows, cols);
}

RED_AMX void pack_transposed(bf16* panels, const bf16* source, int64_t stride, int64_t rows, int64_t cols) {
  red::amx::pack_transposed_panels(panels, source, stride, rows, cols);
}

RED_AMX void copy(bf16* to, int64_t to_stride, const bf16* source, int64_t stride, int64_t rows,
                  int64_t cols) {
  for (int64_t i = 0; i < rows; i += red::amx::kBlock) {
    red::amx::copy_rows(to + i * to_stride, to_stride, source + i * stride, stride, rows - i, cols);
  }
}

RED_AMX void copy_transposed(bf16* to, int64_t to_stride, const bf16* source, int64_t stride, int64_t rows,
                             int64_t cols) {
  for (int64_t i = 0; i < rows; i += red::amx::kBlock) {
    red::amx::copy_transposed(to + i * to_stride, to_stride, source + i, stride, rows - i, cols);
  }
}

RED_AMX void round(bf16* to, int64_t to_stride, const float* from, int64_t stride, int64_t rows,
                   int64_t cols) {
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < cols; j += 32) {
      const float* x = from + i * stride + j;
      const __m512bh rounded = _mm512_cvtne2ps_pbh(_mm512_loadu_ps(x + 16), _mm512_loadu_ps(x));
      _mm512_storeu_si512(to + i * to_stride + j, reinterpret_cast<__m512i>(rounded));
    }
  }
}

}  // namespace red::ops::amx

#endif
