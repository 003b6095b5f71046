// c (m, n) = a (m, k) b in bf16 by AMX, m up to 16: a task's columns of c, summed in fp32. What bounds it is
// reading b from memory, 1 KiB in about 250 cycles of a core; AMX multiplies that by 16 rows in 16 cycles. b
// as it is (k, n): 32 of its rows at a time become panels in the first-level cache, beside the sums, while
// the next 32 are asked for. b^T (n, k): rows of b are what AMX takes as its left operand, so c^T = b a^T
// without a copy of b.
#include <algorithm>

#include "base/check.hpp"
#include "device/amx_tiles.hpp"
#include "ops/matmul_few_rows_bf16.hpp"

#if defined(__x86_64__)

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // in GCC 12's own AVX-512 header
#endif

namespace red::ops {
namespace {

using red::amx::kBlock;
using red::amx::kTileElements;

constexpr int64_t kRows = 16;    // of a tile
constexpr int64_t kDepth = 512;  // of b^T: 16 KiB of a

/// a's columns [p, p + 32), zeros beyond it.
RED_AMX_INLINE void copy_rows(bf16* to, const Tensor& a, int64_t p) {
  const __mmask32 mask = red::amx::first_of_32(a.cols - p);
  for (int64_t row = 0; row < kRows; ++row) {
    _mm512_store_si512(to + row * kBlock,
                       red::amx::row_or_zero(a.as<bf16>() + p, a.row_stride, row, a.rows, mask));
  }
}

/// Panels of 32 rows of b from row p on, zeros beyond it; asks for the 32 rows behind them.
RED_AMX_INLINE void pack(bf16* panels, const Tensor& b, int64_t p, int64_t col, int64_t cols) {
  const bf16* from = b.as<bf16>() + p * b.row_stride + col;
  const int64_t rows = b.rows - p;
  for (int64_t i = 0; i < kBlock; i += 2) {
    const bf16* next = from + (kBlock + i) * b.row_stride;
    for (int64_t j = 0; j < cols; j += kBlock) {
      const __mmask32 mask = red::amx::first_of_32(cols - j);
      const red::amx::Pairs pairs =
          red::amx::interleave(red::amx::row_or_zero(from + j, b.row_stride, i, rows, mask),
                               red::amx::row_or_zero(from + j, b.row_stride, i + 1, rows, mask));
      bf16* to = panels + j * kBlock + i * kRows;
      _mm512_store_si512(to, pairs.low);
      _mm512_store_si512(to + kTileElements, pairs.high);
      _mm_prefetch(next + j, _MM_HINT_T0);
      _mm_prefetch(next + b.row_stride + j, _MM_HINT_T0);
    }
  }
}

RED_AMX void add_up(float* sums, const Tensor& a, const Tensor& b, int64_t col, int64_t cols) {
  alignas(64) bf16 panels[kBlock * kFewRowsCols], rows[kRows * kBlock];
  const red::amx::Tiles tiles(a.rows);
  constexpr std::size_t stride = kFewRowsCols * sizeof(float);
  for (int64_t p = 0; p < b.rows; p += kBlock) {
    copy_rows(rows, a, p);
    pack(panels, b, p, col, cols);
    red::amx::finish_accesses();
    _tile_loadd(4, rows, 64);
    for (int64_t j = 0; j < cols; j += kBlock) {
      const bf16* panel = panels + j * kBlock;
      float* to = sums + j;
      if (p == 0) {
        _tile_zero(0);
        _tile_zero(1);
      } else {
        _tile_loadd(0, to, stride);
        _tile_loadd(1, to + kRows, stride);
      }
      _tile_loadd(6, panel, 64);
      _tile_dpbf16ps(0, 4, 6);
      _tile_loadd(7, panel + kTileElements, 64);
      _tile_dpbf16ps(1, 4, 7);
      _tile_stored(0, to, stride);
      _tile_stored(1, to + kRows, stride);
    }
  }
}

/// 16 rows of b from row j on, in columns [p, p + 32): as they lie where they are whole.
struct Rows {
  const bf16* data;
  std::size_t bytes;  ///< from one to the next
};
RED_AMX_INLINE Rows rows_of(const Tensor& b, int64_t j, int64_t p, bf16* edge) {
  const bf16* from = b.as<bf16>() + j * b.row_stride + p;
  if (j + kRows <= b.rows && p + kBlock <= b.cols) return {from, static_cast<std::size_t>(b.row_stride) * 2};
  const __mmask32 mask = red::amx::first_of_32(b.cols - p);
  red::amx::finish_accesses();  // of the rows that were there
  for (int64_t row = 0; row < kRows; ++row)
    _mm512_store_si512(edge + row * kBlock, red::amx::row_or_zero(from, b.row_stride, row, b.rows - j, mask));
  red::amx::finish_accesses();
  return {edge, 64};
}

/// A panel of 16 columns of a^T: rows [begin, end), padded to whole 32s with zeros.
RED_AMX_INLINE void pack_rows(bf16* panel, const Tensor& a, int64_t begin, int64_t end) {
  for (int64_t p = begin; p < end; p += kBlock, panel += kTileElements) {
    const __mmask32 mask = red::amx::first_of_32(end - p);
    __m512i pairs[kRows];
    for (int64_t row = 0; row < kRows; ++row)
      pairs[row] = red::amx::row_or_zero(a.as<bf16>() + p, a.row_stride, row, a.rows, mask);
    red::amx::transpose(pairs);
    for (int64_t i = 0; i < kRows; ++i) _mm512_store_si512(panel + i * kBlock, pairs[i]);
  }
}

/// sums = columns (cols, 16) transposed
RED_AMX_INLINE void store_transposed(float* sums, const float* columns, int64_t cols) {
  for (int64_t j = 0; j < cols; j += kRows) {
    __m512i rows[kRows];
    for (int64_t i = 0; i < kRows; ++i) rows[i] = _mm512_load_si512(columns + (j + i) * kRows);
    red::amx::transpose(rows);
    for (int64_t i = 0; i < kRows; ++i) _mm512_store_si512(sums + i * kFewRowsCols + j, rows[i]);
  }
}

RED_AMX void add_up_transposed(float* sums, const Tensor& a, const Tensor& b, int64_t col, int64_t cols) {
  alignas(64) float columns[kFewRowsCols * kRows] = {};
  alignas(64) bf16 panel[kDepth * kRows], edge[kRows * kBlock];
  const red::amx::Tiles tiles;
  for (int64_t begin = 0; begin < b.cols; begin += kDepth) {
    const int64_t end = std::min(begin + kDepth, b.cols);
    pack_rows(panel, a, begin, end);
    for (int64_t j = 0; j < cols; j += kRows) {
      const bf16* next = b.as<bf16>() + (col + j + kRows) * b.row_stride;
      _tile_loadd(0, columns + j * kRows, 64);
      for (int64_t p = begin; p < end; p += kBlock) {
        const Rows rows = rows_of(b, col + j, p, edge);
        for (int64_t i = 0; i < kRows; ++i) _mm_prefetch(next + i * b.row_stride + p, _MM_HINT_T0);
        _tile_loadd(4, rows.data, rows.bytes);
        _tile_loadd(6, panel + (p - begin) * kRows, 64);
        _tile_dpbf16ps(0, 4, 6);
      }
      _tile_stored(0, columns + j * kRows, 64);
    }
  }
  store_transposed(sums, columns, cols);
}

}  // namespace

void few_rows_sums_by_amx(float* sums, const Tensor& a, const Tensor& b, bool transpose_b, int64_t col,
                          int64_t cols) {
  transpose_b ? add_up_transposed(sums, a, b, col, cols) : add_up(sums, a, b, col, cols);
}

}  // namespace red::ops

#else

namespace red::ops {

void few_rows_sums_by_amx(float*, const Tensor&, const Tensor&, bool, int64_t, int64_t) {
  RED_CHECK(false, "AMX on another architecture");
}

}  // namespace red::ops

#endif
