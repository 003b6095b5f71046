// Private to attention by tensor cores: tiles of bf16 in shared memory, and the products that its kernels are
// made of. A block has 64 rows of one head, 16 for each of its 4 warps, and goes over tiles of 64 rows of the
// other side. Shapes: tiles (64, kDim); a warp's sums: 16 rows, in fragments of 8 columns.
#pragma once

#include "ops/attention_cuda.cuh"
#include "ops/mma_tensor_core.cuh"

namespace red::ops {

inline constexpr int kRowsOfBlock = 64, kRowsOfWarp = 16, kBlockWarps = 4,
                     kBlockThreads = kBlockWarps * kWarp;

/// bf16 from a tile's row to the next: 16 bytes more than the columns, so that 8 rows lie in different banks.
template <int kDim>
inline constexpr int kPitch = kDim + 8;
template <int kDim>
inline constexpr int kTileSize = kRowsOfBlock* kPitch<kDim>;

using CoreQueryTile = QueryTile<kRowsOfBlock, kRowsOfBlock>;

/// Begins to copy `count` rows of kDim columns, zeros behind them; all threads of the block.
template <int kDim>
__device__ inline void begin_tile(bf16* tile, const bf16* from, int64_t stride, int64_t count) {
  constexpr int chunks = kDim / 8;  // of 16 bytes, in a row
#pragma unroll
  for (int i = static_cast<int>(threadIdx.x); i < kRowsOfBlock * chunks; i += kBlockThreads) {
    const int row = i / chunks, col = i % chunks * 8;
    const bool there = row < count;
    copy_16_bytes(tile + row * kPitch<kDim> + col, there ? from + row * stride + col : from, there);
  }
}

/// A warp's 16 rows of a tile as left operand of products, 16 columns each.
template <int kDim>
struct RowFragments {
  __device__ void read(const bf16* tile, int first_row) {
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
    const bf16* row = tile + (first_row + lane % 16) * kPitch<kDim> + lane / 16 * 8;
#pragma unroll
    for (int i = 0; i < kDim / 16; ++i) steps[i] = load_matrices(row + 16 * i);
  }
  Fragment steps[kDim / 16];
};

/// (16, kCols) fp32 of a warp: value[i][j] of lane 4 g + t is column 8 i + 2 t + j % 2 of row g + 8 (j / 2).
template <int kCols>
struct RowSums {
  float value[kCols / 8][4] = {};

  __device__ void scale(float upper, float lower) {
#pragma unroll
    for (auto& v : value) {
      v[0] *= upper;
      v[1] *= upper;
      v[2] *= lower;
      v[3] *= lower;
    }
  }
};

using Scores = RowSums<kRowsOfBlock>;

/// sums += rows tile^T: a warp's 16 rows against the tile's 64, over kDim columns.
template <int kDim>
__device__ inline void multiply_transposed(Scores& sums, const RowFragments<kDim>& rows, const bf16* tile) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const bf16* row = tile + (lane / 16 * 8 + lane % 8) * kPitch<kDim> + lane / 8 % 2 * 8;
#pragma unroll
  for (int k = 0; k < kDim / 16; ++k) {
#pragma unroll
    for (int n = 0; n < kRowsOfBlock / 16; ++n) {
      const Fragment b = load_matrices(row + 16 * n * kPitch<kDim> + 16 * k);
      multiply_add(sums.value[2 * n], rows.steps[k], b.part[0], b.part[1]);
      multiply_add(sums.value[2 * n + 1], rows.steps[k], b.part[2], b.part[3]);
    }
  }
}

/// The same with the warp's rows, from first_row on, in shared memory as well, against kCols rows of the
/// tile.
template <int kDim, int kCols>
__device__ inline void multiply_transposed(RowSums<kCols>& sums, const bf16* rows, int first_row,
                                           const bf16* tile) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const bf16* left = rows + (first_row + lane % 16) * kPitch<kDim> + lane / 16 * 8;
  const bf16* right = tile + (lane / 16 * 8 + lane % 8) * kPitch<kDim> + lane / 8 % 2 * 8;
#pragma unroll
  for (int k = 0; k < kDim / 16; ++k) {
    const Fragment a = load_matrices(left + 16 * k);
#pragma unroll
    for (int n = 0; n < kCols / 16; ++n) {
      const Fragment b = load_matrices(right + 16 * n * kPitch<kDim> + 16 * k);
      multiply_add(sums.value[2 * n], a, b.part[0], b.part[1]);
      multiply_add(sums.value[2 * n + 1], a, b.part[2], b.part[3]);
    }
  }
}

/// sums += weights tile: a warp's (16, kCols) weights, rounded to bf16, times the tile's first kCols rows.
template <int kDim, int kCols>
__device__ inline void multiply(RowSums<kDim>& sums, const RowSums<kCols>& weights, const bf16* tile) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const bf16* row = tile + lane % 16 * kPitch<kDim> + lane / 16 * 8;
#pragma unroll
  for (int k = 0; k < kCols / 16; ++k) {
    const auto &first = weights.value[2 * k], &second = weights.value[2 * k + 1];
    const Fragment a{{pack(first[0], first[1]), pack(first[2], first[3]), pack(second[0], second[1]),
                      pack(second[2], second[3])}};
#pragma unroll
    for (int n = 0; n < kDim / 16; ++n) {
      const Fragment b = load_transposed(row + 16 * k * kPitch<kDim> + 16 * n);
      multiply_add(sums.value[2 * n], a, b.part[0], b.part[1]);
      multiply_add(sums.value[2 * n + 1], a, b.part[2], b.part[3]);
    }
  }
}

/// A row of sums that this lane and its three neighbours hold; kFirst 2: the one 8 rows further down.
template <int kFirst, int kDim>
__device__ inline void write_row(bf16* to, const RowSums<kDim>& sums) {
  const int place = static_cast<int>(threadIdx.x) % 4;
#pragma unroll
  for (int i = 0; i < kDim / 8; ++i) {
    bf16* at = to + 8 * i + 2 * place;
    const float a = sums.value[i][kFirst], b = sums.value[i][kFirst + 1];
    if (reinterpret_cast<uintptr_t>(at) % sizeof(uint32_t) == 0) {
      *reinterpret_cast<uint32_t*>(at) = pack(a, b);
    } else {
      at[0] = rounded_to<bf16>(a);
      at[1] = rounded_to<bf16>(b);
    }
  }
}

/// The row of this lane's sums, within the block's tile: the upper of two that are 8 apart.
__device__ inline int upper_row() {
  return static_cast<int>(threadIdx.x) / kWarp * kRowsOfWarp + static_cast<int>(threadIdx.x) % kWarp / 4;
}

/// The column of value[i][j], within the tile.
__device__ inline int column_of(int i, int j) {
  return 8 * i + 2 * (static_cast<int>(threadIdx.x) % 4) + j % 2;
}

inline dim3 core_grid(int64_t num_rows, int64_t num_heads) {
  return {static_cast<unsigned>(pieces(num_rows, kRowsOfBlock)), static_cast<unsigned>(num_heads)};
}

/// body(Lanes<kDim>()) for a width that tensor cores take.
template <class Body>
void with_core_dim(int64_t head_dim, const Body& body) {
  RED_CHECK(head_dim == 64 || head_dim == 128, "heads of width {} for tensor cores", head_dim);
  head_dim == 64 ? body(Lanes<64>()) : body(Lanes<128>());
}

}  // namespace red::ops
