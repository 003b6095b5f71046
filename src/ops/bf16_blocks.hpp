// Private to ops: products of small bf16 matrices by the processor's own arithmetic, for attention's tiles.
// How panels lie: device/avx512_bf16.hpp. To be called only where GemmLibrary::has_bf16_arithmetic().
#pragma once

#include <cstdint>

#include "base/bf16.hpp"

namespace red::ops::blocks {

/// n rounded up to whole blocks of 32.
constexpr int64_t padded(int64_t n) {
  return (n + 31) / 32 * 32;
}

/// Panels of b, `size` elements apart, from step `first` on.
struct Panels {
  const bf16* data;
  int64_t size;
  int64_t first = 0;
};

/// c (rows, cols) = a (rows, 32 steps) b, or with `add` += it; rows and cols are multiples of 32.
using Multiply = void (*)(float* c, int64_t c_stride, const bf16* a, int64_t a_stride, const Panels& b,
                          int64_t rows, int64_t cols, int64_t steps, bool add);

/// By AMX, only where GemmLibrary::amx, or by dot products of pairs.
Multiply multiply_by(bool amx);

/// Panels (rows, cols) of source (rows, cols), and of source (cols, rows) transposed; padded with zeros.
void pack(bf16* panels, const bf16* source, int64_t stride, int64_t rows, int64_t cols);
void pack_transposed(bf16* panels, const bf16* source, int64_t stride, int64_t rows, int64_t cols);

/// to (padded rows, padded cols) = source (rows, cols), and = source (cols, rows) transposed; zeros beyond.
void copy(bf16* to, int64_t to_stride, const bf16* source, int64_t stride, int64_t rows, int64_t cols);
void copy_transposed(bf16* to, int64_t to_stride, const bf16* source, int64_t stride, int64_t rows,
                     int64_t cols);

/// to (rows, cols) = from, to the nearest bf16; cols is a multiple of 32.
void round(bf16* to, int64_t to_stride, const float* from, int64_t stride, int64_t rows, int64_t cols);

}  // namespace red::ops::blocks
