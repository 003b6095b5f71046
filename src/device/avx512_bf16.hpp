// Rows of bf16 in registers of AVX-512, 32 at a time, and their pairs: what both dot products (VDPBF16PS) and
// AMX multiply. Everything here is inlined into functions that are compiled for at least
// RED_AVX512_BF16_TARGET and run only where GemmLibrary::has_bf16_arithmetic().
#pragma once

#if defined(__x86_64__)

#include <immintrin.h>

#include <cstdint>

#include "base/bf16.hpp"

#define RED_AVX512_BF16_TARGET "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,fma"
#define RED_AVX512_BF16 __attribute__((target(RED_AVX512_BF16_TARGET)))
#define RED_AVX512_BF16_INLINE __attribute__((target(RED_AVX512_BF16_TARGET), always_inline)) inline

namespace red::avx512 {

/// Mask of the first n of 32.
RED_AVX512_BF16_INLINE __mmask32 first_of_32(int64_t n) {
  return n >= 32 ? 0xFFFFFFFFU : n <= 0 ? 0U : (1U << n) - 1U;
}

/// Mask of the first n of 16.
RED_AVX512_BF16_INLINE __mmask16 first_of_16(int64_t n) {
  return static_cast<__mmask16>(first_of_32(n > 16 ? 16 : n));
}

/// Two rows of 32 elements as 32 pairs.
struct Pairs {
  __m512i low, high;
};
RED_AVX512_BF16_INLINE Pairs interleave(__m512i even, __m512i odd) {
  alignas(64) static constexpr int16_t low[32] = {0,  32, 1,  33, 2,  34, 3,  35, 4,  36, 5,
                                                  37, 6,  38, 7,  39, 8,  40, 9,  41, 10, 42,
                                                  11, 43, 12, 44, 13, 45, 14, 46, 15, 47};
  const __m512i index = _mm512_load_si512(low);
  return {_mm512_permutex2var_epi16(even, index, odd),
          _mm512_permutex2var_epi16(even, _mm512_add_epi16(index, _mm512_set1_epi16(16)), odd)};
}

/// (16, 16) of four bytes each.
RED_AVX512_BF16_INLINE void transpose(__m512i (&rows)[16]) {
  __m512i t[16];
  for (int i = 0; i < 8; ++i) {
    t[2 * i] = _mm512_unpacklo_epi32(rows[2 * i], rows[2 * i + 1]);
    t[2 * i + 1] = _mm512_unpackhi_epi32(rows[2 * i], rows[2 * i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    rows[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
    rows[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
    rows[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
    rows[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
  for (int i = 0; i < 4; ++i) {
    t[i] = _mm512_shuffle_i32x4(rows[i], rows[i + 4], 0x88);
    t[i + 4] = _mm512_shuffle_i32x4(rows[i], rows[i + 4], 0xDD);
    t[i + 8] = _mm512_shuffle_i32x4(rows[i + 8], rows[i + 12], 0x88);
    t[i + 12] = _mm512_shuffle_i32x4(rows[i + 8], rows[i + 12], 0xDD);
  }
  for (int i = 0; i < 8; ++i) {
    rows[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
    rows[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xDD);
  }
}

/// Row `row` of a matrix of `rows` rows under the mask; zeros beyond.
RED_AVX512_BF16_INLINE __m512i row_or_zero(const bf16* from, int64_t stride, int64_t row, int64_t rows,
                                           __mmask32 mask) {
  return row < rows ? _mm512_maskz_loadu_epi16(mask, from + row * stride) : _mm512_setzero_si512();
}

/// sum (16) += a (32) b (32), pair by pair. Denormals count as zero, as the instruction has it.
RED_AVX512_BF16_INLINE __m512 add_pairs(__m512 sum, __m512i a, __m512i b) {
  return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b));
}

}  // namespace red::avx512

#endif
