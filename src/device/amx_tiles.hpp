// Products of bf16 matrices by AMX (Intel's Software Developer's Manual, TDPBF16PS). A tile is 16 rows of 64
// bytes; one instruction adds to a (16, 16) fp32 tile the product of (16, 32) and (32, 16) bf16, whose rows
// lie in pairs. A block of 32 rows and 32 columns takes all eight tiles: four sums, two of a, two of b, which
// comes in panels (avx512_bf16.hpp). Bound: four products take 64 cycles and load 4 KiB; so either a or b has
// to be in the first-level cache. Everything here is inlined into functions that are compiled for AMX
// (RED_AMX) and run only where GemmLibrary::amx. Sums flush denormals to zero, as the instruction does.
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

/// Keeps memory accesses before it and tile loads behind it apart, and the other way round: GCC 12's loads do
/// not tell the compiler that they read.
RED_AMX_INLINE void finish_accesses() {
  asm volatile("" : : : "memory");
}

/// c (32, 32) fp32 = a b, or += a b. a (32, 32 steps), rows a_stride apart; b: `steps` steps of a panel.
RED_AMX_INLINE void multiply(float* c, int64_t c_stride, const bf16* a, int64_t a_stride, const bf16* b,
                             int64_t steps, Sum sum) {
  finish_accesses();
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

}  // namespace red::amx

#endif
