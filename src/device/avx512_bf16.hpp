// bf16 by AVX-512: rows in registers, 32 elements at a time, panels of their pairs, and dot products of pairs
// (VDPBF16PS), which multiply what AMX's tiles do (amx_tiles.hpp) where there is no AMX. Panel: 32 columns of
// b, the rows padded with zeros to whole 32s; for each 32 rows 2 KiB: 16 pairs of rows of columns 0 to 15,
// then the same of columns 16 to 31. Everything here is inlined into functions that are compiled for at least
// RED_AVX512_BF16_TARGET and run only where GemmLibrary::has_bf16_arithmetic(). Denormals count as zero, as
// the instruction has it.
#pragma once

#if defined(__x86_64__)

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "base/bf16.hpp"

#define RED_AVX512_BF16_TARGET "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,fma"
#define RED_AVX512_BF16 __attribute__((target(RED_AVX512_BF16_TARGET)))
#define RED_AVX512_BF16_INLINE __attribute__((target(RED_AVX512_BF16_TARGET), always_inline)) inline

namespace red::avx512 {

constexpr int64_t kBlock = 32;                ///< rows and columns of one product; rows of b in one step
constexpr int64_t kStep = kBlock * kBlock;    ///< elements of a panel for one step
constexpr int64_t kTileElements = kStep / 2;  ///< of a bf16 tile

constexpr int64_t padded(int64_t n) {
  return (n + kBlock - 1) / kBlock * kBlock;
}

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

/// Panels of b = source (rows, cols), one after another.
RED_AVX512_BF16_INLINE void pack_panels(bf16* panels, const bf16* source, int64_t stride, int64_t rows,
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
RED_AVX512_BF16_INLINE void pack_transposed_panels(bf16* panels, const bf16* source, int64_t stride,
                                                   int64_t rows, int64_t cols) {
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
RED_AVX512_BF16_INLINE void copy_rows(bf16* to, int64_t to_stride, const bf16* source, int64_t stride,
                                      int64_t rows, int64_t cols) {
  for (int64_t i = 0; i < kBlock; ++i) {
    for (int64_t j = 0; j < cols; j += kBlock) {
      _mm512_storeu_si512(to + i * to_stride + j,
                          row_or_zero(source + j, stride, i, rows, first_of_32(cols - j)));
    }
  }
}

/// The same of source (cols, rows) transposed.
RED_AVX512_BF16_INLINE void copy_transposed(bf16* to, int64_t to_stride, const bf16* source, int64_t stride,
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

/// A pair in all 16 places.
RED_AVX512_BF16_INLINE __m512i both_of(const bf16* pair) {
  int32_t bits = 0;
  std::memcpy(&bits, pair, sizeof(bits));
  return _mm512_set1_epi32(bits);
}

/// sum (16) += a (32) b (32), pair by pair.
RED_AVX512_BF16_INLINE __m512 add_pairs(__m512 sum, __m512i a, __m512i b) {
  return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b));
}

enum class Sum { begin, add };

/// Where the pairs of a's rows lie: element distances.
struct PairsOfRows {
  int64_t row, pair, step;
};

/// c (kRows, 32) fp32 = a b, or += a b. a (kRows, 32 steps); b: `steps` steps of a panel.
template <int64_t kRows>
RED_AVX512_BF16_INLINE void multiply_rows(float* c, int64_t c_stride, const bf16* a, PairsOfRows at,
                                          const bf16* b, int64_t steps, Sum sum) {
  __m512 s[kRows][2];
  for (int64_t r = 0; r < kRows; ++r) {
    for (int64_t half = 0; half < 2; ++half)
      s[r][half] = sum == Sum::add ? _mm512_loadu_ps(c + r * c_stride + half * 16) : _mm512_setzero_ps();
  }
  for (int64_t step = 0; step < steps; ++step, b += kStep) {
    for (int64_t i = 0; i < kBlock / 2; ++i) {
      const __m512i low = _mm512_loadu_si512(b + i * kBlock),
                    high = _mm512_loadu_si512(b + kTileElements + i * kBlock);
      for (int64_t r = 0; r < kRows; ++r) {
        const __m512i x = both_of(a + r * at.row + step * at.step + i * at.pair);
        s[r][0] = add_pairs(s[r][0], x, low);
        s[r][1] = add_pairs(s[r][1], x, high);
      }
    }
  }
  for (int64_t r = 0; r < kRows; ++r) {
    for (int64_t half = 0; half < 2; ++half) _mm512_storeu_ps(c + r * c_stride + half * 16, s[r][half]);
  }
}

/// c (32, 32) fp32 = a b, or += a b, as amx::multiply() does it.
RED_AVX512_BF16_INLINE void multiply_by_pairs(float* c, int64_t c_stride, const bf16* a, int64_t a_stride,
                                              const bf16* b, int64_t steps, Sum sum) {
  constexpr int64_t rows = 8;  // 16 registers of sums
  for (int64_t row = 0; row < kBlock; row += rows)
    multiply_rows<rows>(c + row * c_stride, c_stride, a + row * a_stride, {a_stride, 2, kBlock}, b, steps,
                        sum);
}

/// The same of a panel of a^T, which takes fewer steps to make than rows of a.
RED_AVX512_BF16_INLINE void multiply_panel_by_pairs(float* c, int64_t c_stride, const bf16* a, const bf16* b,
                                                    int64_t steps, Sum sum) {
  constexpr int64_t rows = 8;
  for (int64_t row = 0; row < kBlock; row += rows) {
    multiply_rows<rows>(c + row * c_stride, c_stride, a + row / 16 * kTileElements + row % 16 * 2,
                        {2, kBlock, kStep}, b, steps, sum);
  }
}

}  // namespace red::avx512

#endif
