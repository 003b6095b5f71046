// c (m, n) = a (m, k) b in bf16 by dot products of pairs, m up to 16: a task's columns of c, summed in fp32.
// Bound: from some seven rows on it is arithmetic, 32 multiplications an instruction, and below that reading
// b. b as it is (k, n): 32 of its rows at a time become pairs in the first-level cache, beside the sums,
// while the next 32 are asked for. b^T (n, k): elements of a row are pairs as they lie.
#include <algorithm>

#include "base/check.hpp"
#include "device/avx512_bf16.hpp"
#include "ops/matmul_few_rows.hpp"
#include "ops/matmul_few_rows_bf16.hpp"

#if defined(__x86_64__)

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // in GCC 12's own AVX-512 header
#endif

namespace red::ops {
namespace {

constexpr int64_t kLanes = 16;              // fp32, or pairs of bf16
constexpr int64_t kRow = 2 * kLanes;        // bf16 in a register
constexpr int64_t kDepth = 32;              // rows of b at a time
constexpr int64_t kBlockCols = 4 * kLanes;  // with 6 rows of sums, 24 of the 32 registers
constexpr int64_t kSquare = 4;              // rows and columns of dot products at a time

constexpr int64_t whole_blocks(int64_t cols) {
  return (cols + kBlockCols - 1) / kBlockCols * kBlockCols;
}

/// Pairs of b's rows p and p + 1, p + 2 and p + 3 ..., kBlockCols columns at a time; zeros beyond b. Asks for
/// the rows behind them.
RED_AVX512_BF16_INLINE void pack(bf16* pairs, const Tensor& b, int64_t p, int64_t col, int64_t cols) {
  const bf16* from = b.as<bf16>() + p * b.row_stride + col;
  const int64_t rows = b.rows - p;
  for (int64_t i = 0; i < kDepth; i += 2) {
    const bf16* next = from + (kDepth + i) * b.row_stride;
    for (int64_t j = 0; j < whole_blocks(cols); j += kRow) {
      const __mmask32 mask = avx512::first_of_32(cols - j);
      const avx512::Pairs both =
          avx512::interleave(avx512::row_or_zero(from + j, b.row_stride, i, rows, mask),
                             avx512::row_or_zero(from + j, b.row_stride, i + 1, rows, mask));
      bf16* to = pairs + j / kBlockCols * kBlockCols * kDepth + i * kBlockCols + j % kBlockCols * 2;
      _mm512_store_si512(to, both.low);
      _mm512_store_si512(to + kRow, both.high);
      _mm_prefetch(next + j, _MM_HINT_T1);
      _mm_prefetch(next + b.row_stride + j, _MM_HINT_T1);
    }
  }
}

/// sums (kRows, kBlockCols) += a (kRows, kDepth) b
template <int64_t kRows>
RED_AVX512_BF16_INLINE void add_block(float* sums, const bf16* a, const bf16* pairs) {
  __m512 s[kRows][4];
  for (int64_t r = 0; r < kRows; ++r) {
    for (int64_t v = 0; v < 4; ++v) s[r][v] = _mm512_load_ps(sums + r * kFewRowsCols + v * kLanes);
  }
  for (int64_t i = 0; i < kDepth; i += 2, pairs += 2 * kBlockCols) {
    __m512i w[4];
    for (int64_t v = 0; v < 4; ++v) w[v] = _mm512_load_si512(pairs + v * kRow);
    for (int64_t r = 0; r < kRows; ++r) {
      const __m512i x = avx512::both_of(a + r * kDepth + i);
      for (int64_t v = 0; v < 4; ++v) s[r][v] = avx512::add_pairs(s[r][v], x, w[v]);
    }
  }
  for (int64_t r = 0; r < kRows; ++r) {
    for (int64_t v = 0; v < 4; ++v) _mm512_store_ps(sums + r * kFewRowsCols + v * kLanes, s[r][v]);
  }
}

/// All rows, at most kRows at a time.
template <int64_t kRows = 6>
RED_AVX512_BF16_INLINE void add_rows(float* sums, const bf16* a, const bf16* pairs, int64_t rows) {
  for (; rows >= kRows; rows -= kRows, sums += kRows * kFewRowsCols, a += kRows * kDepth)
    add_block<kRows>(sums, a, pairs);
  if constexpr (kRows > 1) add_rows<kRows - 1>(sums, a, pairs, rows);
}

RED_AVX512_BF16 void add_up(float* sums, const Tensor& a, const Tensor& b, int64_t col, int64_t cols) {
  alignas(64) bf16 pairs[kDepth * kFewRowsCols], rows[kFewRows * kDepth];
  std::fill_n(sums, a.rows * kFewRowsCols, 0.0F);
  for (int64_t p = 0; p < b.rows; p += kDepth) {
    const __mmask32 mask = avx512::first_of_32(std::min(kDepth, b.rows - p));
    for (int64_t r = 0; r < a.rows; ++r) {
      const __m512i row = _mm512_maskz_loadu_epi16(mask, a.as<bf16>() + r * a.row_stride + p);
      _mm512_store_si512(rows + r * kDepth, row);
    }
    pack(pairs, b, p, col, cols);
    for (int64_t j = 0; j < cols; j += kBlockCols) add_rows(sums + j, rows, pairs + j * kDepth, a.rows);
  }
}

/// Lane i: the sum of all lanes of s[i].
RED_AVX512_BF16_INLINE __m512 sums_of_lanes(const __m512 (&s)[kSquare * kSquare]) {
  __m512d pairs[8];
  __m512 fours[4], eights[2];
  for (int i = 0; i < 8; ++i) {
    pairs[i] = _mm512_castps_pd(_mm512_add_ps(_mm512_unpacklo_ps(s[2 * i], s[2 * i + 1]),
                                              _mm512_unpackhi_ps(s[2 * i], s[2 * i + 1])));
  }
  for (int i = 0; i < 4; ++i) {
    fours[i] = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(pairs[2 * i], pairs[2 * i + 1])),
                             _mm512_castpd_ps(_mm512_unpackhi_pd(pairs[2 * i], pairs[2 * i + 1])));
  }
  for (int i = 0; i < 2; ++i) {
    eights[i] = _mm512_add_ps(_mm512_shuffle_f32x4(fours[2 * i], fours[2 * i + 1], 0x88),
                              _mm512_shuffle_f32x4(fours[2 * i], fours[2 * i + 1], 0xDD));
  }
  return _mm512_add_ps(_mm512_shuffle_f32x4(eights[0], eights[1], 0x88),
                       _mm512_shuffle_f32x4(eights[0], eights[1], 0xDD));
}

using Rows = const bf16* [kSquare];

/// From row `first` on; the last one again beyond it.
RED_AVX512_BF16_INLINE void find_rows(Rows& rows, const Tensor& x, int64_t first) {
  for (int64_t i = 0; i < kSquare; ++i)
    rows[i] = x.as<bf16>() + std::min(first + i, x.rows - 1) * x.row_stride;
}

/// (kSquare, kSquare) dot products of rows of a with rows of b, k long. Asks for b's rows behind these.
RED_AVX512_BF16_INLINE __m512 dot_products(const Rows& a, const Rows& b, int64_t k, int64_t ahead) {
  __m512 s[kSquare * kSquare];
  for (__m512& sum : s) sum = _mm512_setzero_ps();
  for (int64_t p = 0; p < k; p += kRow) {
    const __mmask32 mask = avx512::first_of_32(k - p);
    __m512i w[kSquare];
    for (int64_t j = 0; j < kSquare; ++j) {
      w[j] = _mm512_maskz_loadu_epi16(mask, b[j] + p);
      _mm_prefetch(b[j] + p + ahead, _MM_HINT_T1);
    }
    for (int64_t i = 0; i < kSquare; ++i) {
      const __m512i x = _mm512_maskz_loadu_epi16(mask, a[i] + p);
      for (int64_t j = 0; j < kSquare; ++j)
        s[i * kSquare + j] = avx512::add_pairs(s[i * kSquare + j], x, w[j]);
    }
  }
  return sums_of_lanes(s);
}

RED_AVX512_BF16 void add_up_transposed(float* sums, const Tensor& a, const Tensor& b, int64_t col,
                                       int64_t cols) {
  Rows of_a, of_b;
  for (int64_t j = 0; j < cols; j += kSquare) {
    find_rows(of_b, b, col + j);
    for (int64_t i = 0; i < a.rows; i += kSquare) {
      find_rows(of_a, a, i);
      alignas(64) float square[kSquare * kSquare];
      _mm512_store_ps(square, dot_products(of_a, of_b, b.cols, kSquare * b.row_stride));
      for (int64_t r = 0; r < kSquare; ++r)
        std::copy_n(square + r * kSquare, kSquare, sums + (i + r) * kFewRowsCols + j);
    }
  }
}

}  // namespace

void few_rows_sums_by_pairs(float* sums, const Tensor& a, const Tensor& b, bool transpose_b, int64_t col,
                            int64_t cols) {
  transpose_b ? add_up_transposed(sums, a, b, col, cols) : add_up(sums, a, b, col, cols);
}

}  // namespace red::ops

#else

namespace red::ops {

void few_rows_sums_by_pairs(float*, const Tensor&, const Tensor&, bool, int64_t, int64_t) {
  RED_CHECK(false, "AVX512_BF16 on another architecture");
}

}  // namespace red::ops

#endif
