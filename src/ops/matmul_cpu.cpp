// One serial call of the stream's GEMM library per tile of c.
#include <cmath>

#include "ops/matmul_sizes.hpp"
#include "ops/matmul_tiles.hpp"
#include "ops/task_scratch.hpp"

namespace red::ops {
namespace {

template <class T>
void scale(const Tensor& c, float factor) {
  for (int64_t row = 0; row < c.rows; ++row) {
    T* x = c.as<T>() + row * c.row_stride;
    for (int64_t col = 0; col < c.cols; ++col) x[col] = T(factor == 0.0F ? 0.0F : factor * x[col]);
  }
}

constexpr int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

/// How many tiles there should be: each some ten milliseconds of one core at most, so that communication
/// makes progress in between, and enough for a handful of threads to end together where there is work for
/// them.
int64_t wanted_tiles(int64_t m, int64_t n, int64_t k, double most_flop) {
  constexpr double least_flop = 4e6;
  const double flop = 2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k);
  const double for_threads = std::min(flop > 4e9 ? 16.0 : 8.0, flop / least_flop);
  return static_cast<int64_t>(std::ceil(std::max({1.0, flop / most_flop, for_threads})));
}

}  // namespace

MatmulTiles matmul_tiles(int64_t m, int64_t n, int64_t k, bool bf16_arithmetic) {
  // Each tile copies its rows of a and its columns of b into the library's own layout; measured against the
  // multiplication itself that costs about 12 / rows + 20 / cols (OpenBLAS and oneDNN, AVX2).
  constexpr double per_row = 12.0, per_col = 20.0;
  constexpr int64_t least_rows = 64, least_cols = 64;
  // bf16 arithmetic is several times as fast.
  const int64_t wanted = wanted_tiles(m, n, k, bf16_arithmetic ? 2200e6 : 550e6),
                most_rows = ceil_div(m, least_rows), most_cols = ceil_div(n, least_cols);
  MatmulTiles best{m, n, 1, 1};
  double best_cost = 0.0;
  for (int64_t num_rows = 1; num_rows <= std::min(wanted, most_rows); ++num_rows) {
    const int64_t num_cols = std::min(ceil_div(wanted, num_rows), most_cols);
    const int64_t rows = matmul_piece(m, num_rows), cols = matmul_piece(n, num_cols);
    const MatmulTiles tiles{rows, cols, ceil_div(m, rows), ceil_div(n, cols)};
    const double missing = std::max(1.0, static_cast<double>(wanted) / static_cast<double>(tiles.count()));
    const double ragged = static_cast<double>(rows * tiles.num_rows) *
                          static_cast<double>(cols * tiles.num_cols) /
                          (static_cast<double>(m) * static_cast<double>(n));
    const double cost =
        missing * ragged * (1.0 + per_row / static_cast<double>(rows) + per_col / static_cast<double>(cols));
    if (best_cost == 0.0 || cost < best_cost) best = tiles, best_cost = cost;
  }
  return best;
}

void matmul(Stream& stream, const Tensor& c, const Tensor& a, Transpose transpose_a, const Tensor& b,
            Transpose transpose_b, float alpha, float beta) {
  const bool ta = transpose_a == Transpose::yes, tb = transpose_b == Transpose::yes;
  const MatmulSizes sizes = checked_sizes(c, a, transpose_a, b, transpose_b);
  const int64_t m = sizes.m, n = sizes.n, k = sizes.k;
  if (m == 0 || n == 0) return;
  if (k == 0) {
    // Libraries disagree about empty sums, and some about leading dims of 0.
    c.dtype == DType::bf16 ? scale<bf16>(c, beta) : scale<float>(c, beta);
    return;
  }
  const MatmulArgs args{c, a, b, ta, tb, alpha, beta};
  const GemmLibrary& gemm = stream.gemm();
  const MatmulTiles tiles = matmul_tiles(m, n, k, a.dtype == DType::bf16 && gemm.has_bf16_arithmetic());
  // Neighbouring tasks share columns of b: its packed panel is still in the shared cache.
  const auto tile = [&](int64_t i) {
    const int64_t row = i % tiles.num_rows * tiles.rows, col = i / tiles.num_rows * tiles.cols;
    return Block{row, col, std::min(tiles.rows, m - row), std::min(tiles.cols, n - col)};
  };
  const auto multiply_directly = [&]<class T>(auto gemm_function, T* result) {
    stream.parallel_for(tiles.count(), [&](int64_t i) {
      const Block part = tile(i);
      multiply_tile(gemm_function, args, part, result + part.row * c.row_stride + part.col, c.row_stride);
    });
  };
  if (c.dtype == DType::fp32 && a.dtype == DType::fp32) return multiply_directly(gemm.sgemm, c.as<float>());
  if (c.dtype == DType::fp32 && gemm.has_bf16_arithmetic())
    return multiply_directly(gemm.bf16gemm, c.as<float>());
  if (a.dtype == DType::bf16 && gemm.rounded_bf16gemm != nullptr)
    return multiply_directly(gemm.rounded_bf16gemm, c.as<bf16>());
  const ArenaScope scope(stream.scratch());
  const TaskScratch scratch(stream, tiles.count(), kBf16TileFloats);
  stream.parallel_for(tiles.count(), [&](int64_t i) {
    const TaskScratch::Piece piece(scratch);
    multiply_bf16_tile(gemm, args, tile(i), piece.data());
  });
}

std::size_t matmul_scratch_bytes(int num_threads, DType dtype) {
  return dtype == DType::bf16 ? TaskScratch::num_bytes(num_threads, kBf16TileFloats) : 0;
}

}  // namespace red::ops
