// Products of bf16 matrices by AMX (Intel's Software Developer's Manual, TDPBF16PS). A tile is 16 rows of 64
// bytes; one instruction adds to a (16, 16) fp32 tile the product of (16, 32) and (32, 16) bf16, whose rows
// lie in pairs. A block of 32 rows and 32 columns takes all eight tiles: four sums, two of a, two of b.
// Panel: 32 columns of b, the rows padded with zeros to whole 32s; for each 32 rows 2 KiB: 16 pairs of rows
// of columns 0 to 15, then the same of columns 16 to 31. Bound: four products take 64 cycles and load 4 KiB;
// so either a or b has to be in the first-level cache. Everything here is inlined into functions that are
// compiled for AMX (RED_AMX) and run only where amx_usable(). Sums flush denormals to zero, as the
// instruction does.
#pragma once

#if defined(__x86_64__)

#include <immintrin.h>

#include <cstdint>

#include "device/avx512_bf16.hpp"

#define RED_AMX_TARGET "amx-tile,amx-bf16," RED_AVX512_BF16_TARGET
#define RED_AMX __attribute__((target(RED_AMX_TARGET)))
#define RED_AMX_INLINE __attribute__((target(RED_AMX_TARGET), always_inline)) inline

namespace red::amx {

using namespace avx512;  // NOLINT(google-build-using-namespace): the same rows, in tiles

constexpr int64_t kBlock = 32;                ///< rows and columns of one product; rows of b in one step
constexpr int64_t kStep = kBlock * kBlock;    ///< elements of a panel for one step
constexpr int64_t kTileElements = kStep / 2;  ///< of a bf16 tile

constexpr int64_t padded(int64_t n) {
  return (n + kBlock - 1) / kBlock * kBlock;
}

/// While one lives, the thread's tiles have the shape that multiply() needs; with fewer than 16 `rows`, tiles
/// 0 to 5 (sums and a) have those. Other libraries may use tiles before and after, not meanwhile.
class Tiles {
 public:
  RED_AMX_INLINE explicit Tiles(int64_t rows = 16) {
    alignas(64) Shapes shapes;
    for (int tile = 0; tile < 6; ++tile) shapes.rows[tile] = static_cast<uint8_t>(rows);
    asm volatile("" ::"m"(shapes));  // GCC 12 takes the instruction to read the first 8 bytes alone
    _tile_loadconfig(&shapes);
  }
  RED_AMX_INLINE ~Tiles() { _tile_release(); }
  Tiles(const Tiles&) = delete;
  Tiles& operator=(const Tiles&) = delete;

 private:
  struct Shapes {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
  };
};

enum class Sum { begin, add };

/// c (32, 32) fp32 = a b, or += a b. a (32, 32 steps), rows a_stride apart; b: `steps` steps of a panel.
RED_AMX_INLINE void multiply(float* c, int64_t c_stride, const bf16* a, int64_t a_stride, const bf16* b,
                             int64_t steps, Sum sum) {
  const auto c_bytes = static_cast<std::size_t>(c_stride) * 4,
             a_bytes = static_cast<std::size_t>(a_stride) * 2;
  float* lower_c = c + 16 * c_stride;
  const bf16* lower_a = a + 16 * a_stride;
  if (sum == Sum::add) {
    _tile_loadd(0, c, c_bytes);
    _tile_loadd(1, c + 16, c_bytes);
    _tile_loadd(2, lower_c, c_bytes);
    _tile_loadd(3, lower_c + 16, c_bytes);
  } else {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
  for (int64_t step = 0; step < steps; ++step) {
    _tile_loadd(6, b, 64);
    _tile_loadd(4, a, a_bytes);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(7, b + kTileElements, 64);
    _tile_dpbf16ps(1, 4, 7);
    _tile_loadd(5, lower_a, a_bytes);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
    a += kBlock;
    lower_a += kBlock;
    b += kStep;
  }
  _tile_stored(0, c, c_bytes);
  _tile_stored(1, c + 16, c_bytes);
  _tile_stored(2, lower_c, c_bytes);
  _tile_stored(3, lower_c + 16, c_bytes);
}

/// Panels of b = source (rows, cols), one after another.
RED_AMX_INLINE void pack_panels(bf16* panels, const bf16* source, int64_t stride, int64_t rows,
                                int64_t cols) {
  const int64_t panel = padded(rows) * kBlock;
  for (int64_t i = 0; i < padded(rows); i += 2) {
    bf16* to = panels + i / kBlock * kStep + i % kBlock * 16;
    for (int64_t j = 0; j < cols; j += kBlock, to += panel) {
      const __mmask32 mask = first_of_32(cols - j);
      const Pairs pairs = interleave(row_or_zero(source + j, stride, i, rows, mask),
                                     row_or_zero(source + j, stride, i + 1, rows, mask));
      _mm512_store_si512(to, pairs.low);
      _mm512_store_si512(to + kTileElements, pairs.high);
    }
  }
}

/// Panels of b = source (cols, rows) transposed.
RED_AMX_INLINE void pack_transposed_panels(bf16* panels, const bf16* source, int64_t stride, int64_t rows,
                                           int64_t cols) {
  for (int64_t j = 0; j < cols; j += kBlock, panels += padded(rows) * kBlock) {
    for (int64_t i = 0; i < rows; i += kBlock) {
      const __mmask32 mask = first_of_32(rows - i);
      for (int64_t half = 0; half < 2; ++half) {
        bf16* to = panels + i * kBlock + half * kTileElements;
        __m512i pairs[16];
        for (int64_t p = 0; p < 16; ++p)
          pairs[p] = row_or_zero(source + i, stride, j + half * 16 + p, cols, mask);
        transpose(pairs);
        for (int64_t p = 0; p < 16; ++p) _mm512_store_si512(to + p * kBlock, pairs[p]);
      }
    }
  }
}

/// a (32, padded(cols)), rows to_stride apart, of source (rows, cols) with at most 32 rows; zeros beyond it.
RED_AMX_INLINE void copy_rows(bf16* to, int64_t to_stride, const bf16* source, int64_t stride, int64_t rows,
                              int64_t cols) {
  for (int64_t i = 0; i < kBlock; ++i) {
    for (int64_t j = 0; j < cols; j += kBlock) {
      _mm512_storeu_si512(to + i * to_stride + j,
                          row_or_zero(source + j, stride, i, rows, first_of_32(cols - j)));
    }
  }
}

/// The same of source (cols, rows) transposed.
RED_AMX_INLINE void copy_transposed(bf16* to, int64_t to_stride, const bf16* source, int64_t stride,
                                    int64_t rows, int64_t cols) {
  const __mmask32 mask = first_of_32(rows);
  for (int64_t j = 0; j < cols; j += kBlock) {
    __m512i upper[16], lower[16];
    for (int64_t p = 0; p < 16; ++p) {
      const Pairs pairs = interleave(row_or_zero(source, stride, j + 2 * p, cols, mask),
                                     row_or_zero(source, stride, j + 2 * p + 1, cols, mask));
      upper[p] = pairs.low;
      lower[p] = pairs.high;
    }
    transpose(upper);
    transpose(lower);
    for (int64_t p = 0; p < 16; ++p) {
      _mm512_storeu_si512(to + p * to_stride + j, upper[p]);
      _mm512_storeu_si512(to + (16 + p) * to_stride + j, lower[p]);
    }
  }
}

}  // namespace red::amx

#endif
