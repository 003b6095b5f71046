// Attention's backward pass by tensor cores: bf16, heads of 64 or 128 columns. Two kernels, as on the plain
// path: no sum needs atomics or an order of blocks. Bound by their operations, 6 k and 8 k for each pair of
// query and key. Shapes: see attention.hpp.
#include "ops/attention_backward_cuda.cuh"
#include "ops/attention_tensor_core.cuh"
#include "ops/attention_tensor_core.hpp"

namespace red::ops {
namespace {

constexpr float kLog2OfE = 1.44269504088896F;

/// Of one query.
struct RowStatistics {
  template <class T>
  __device__ RowStatistics(const BackwardArgs<T>& a, int64_t query, int64_t head) {
    if (query >= a.num_queries) return;
    lse = a.lse[head * a.lse_stride + query] * kLog2OfE;
    delta = a.delta[head * a.delta_stride + query];
  }
  float lse = 0.0F, delta = 0.0F;  // lse in units of log(2)
};

/// scores <- the gradient of scores, before their scale, of a lane's row; dp: of probabilities.
template <int kFirst>
__device__ void score_gradients(Scores& scores, const Scores& dp, KeyRange visible, int32_t key,
                                const RowStatistics& row, float scale) {
#pragma unroll
  for (int i = 0; i < kRowsOfBlock / 8; ++i) {
#pragma unroll
    for (int j = kFirst; j < kFirst + 2; ++j) {
      const int32_t at = key + column_of(i, j);
      const bool sees = at >= visible.begin && at < visible.end;
      float& s = scores.value[i][j];
      s = sees ? exp2f(s * scale * kLog2OfE - row.lse) * (dp.value[i][j] - row.delta) * scale : 0.0F;
    }
  }
}

template <int kDim>
__global__ void __launch_bounds__(kBlockThreads) core_query_gradient_kernel(BackwardArgs<bf16> a) {
  GPU_DYN_SMEM(bf16, shared);
  __shared__ QueryRow query_rows[kRowsOfBlock];
  constexpr int size = kTileSize<kDim>;
  bf16 *queries = shared, *d_out = queries + size, *keys = d_out + size, *values = keys + size;
  const int64_t head = blockIdx.y, first = (static_cast<int64_t>(gridDim.x) - 1 - blockIdx.x) * kRowsOfBlock;
  const int row = upper_row(), warp_row = row / kRowsOfWarp * kRowsOfWarp;
  const CoreQueryTile query_tile(query_rows, a.rows, first, a.num_queries);
  begin_tile<kDim>(queries, a.q.at(first, head), a.q.stride, a.num_queries - first);
  begin_tile<kDim>(d_out, a.d_o.at(first, head), a.d_o.stride, a.num_queries - first);
  end_copies();
  const RowStatistics upper(a, first + row, head), lower(a, first + row + 8, head);
  __syncthreads();
  RowSums<kDim> dq;
  query_tile.for_each_key_tile([&](CoreQueryTile::Run run, int32_t key, int32_t count) {
    begin_tile<kDim>(keys, a.keys.at(key, head), a.keys.stride, count);
    end_copies();
    begin_tile<kDim>(values, a.values.at(key, head), a.values.stride, count);
    end_copies();
    wait_for_copies<1>();
    __syncthreads();
    Scores scores, dp;
    multiply_transposed<kDim>(scores, queries, warp_row, keys);
    wait_for_copies<0>();
    __syncthreads();
    multiply_transposed<kDim>(dp, d_out, warp_row, values);
    score_gradients<0>(scores, dp, query_tile.visible(run, row), key, upper, a.scale);
    score_gradients<2>(scores, dp, query_tile.visible(run, row + 8), key, lower, a.scale);
    multiply<kDim>(dq, scores, keys);
    __syncthreads();
  });
  wait_for_copies<0>();  // where there was no key
  if (query_rows[row].sequence >= 0) write_row<0>(a.dq.at(first + row, head), dq);
  if (query_rows[row + 8].sequence >= 0) write_row<2>(a.dq.at(first + row + 8, head), dq);
}

/// scores (keys, queries from `first` on) <- probabilities
template <int kCols>
__device__ void probabilities_of(RowSums<kCols>& scores, const QueryStatistics<kRowsOfBlock>& queries,
                                 int first, int64_t key, float scale) {
#pragma unroll
  for (int i = 0; i < kCols / 8; ++i) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int col = first + column_of(i, j);
      const int64_t own = key + (j < 2 ? 0 : 8);
      const QueryRow& query = queries.rows[col];
      const bool sees = own >= query.begin && own < query.end;
      float& s = scores.value[i][j];
      s = sees ? exp2f((s * scale - queries.lse[col]) * kLog2OfE) : 0.0F;
    }
  }
}

/// dp (keys, queries from `first` on) <- the gradient of scores; 0 where a probability is, whatever dp is
/// there.
template <int kCols>
__device__ void score_gradients_of(RowSums<kCols>& dp, const RowSums<kCols>& probabilities,
                                   const QueryStatistics<kRowsOfBlock>& queries, int first, float scale) {
#pragma unroll
  for (int i = 0; i < kCols / 8; ++i) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const float p = probabilities.value[i][j];
      float& d = dp.value[i][j];
      d = p == 0.0F ? 0.0F : p * (d - queries.delta[first + column_of(i, j)]) * scale;
    }
  }
}

template <int kDim>
__global__ void __launch_bounds__(kBlockThreads) core_key_gradient_kernel(BackwardArgs<bf16> a) {
  GPU_DYN_SMEM(bf16, shared);
  __shared__ QueryStatistics<kRowsOfBlock> statistics;
  // Queries at once: the sums of 128 columns leave no registers for more.
  constexpr int size = kTileSize<kDim>, cols = kDim == 128 ? kRowsOfBlock / 2 : kRowsOfBlock;
  bf16 *keys = shared, *values = keys + size, *queries = values + size, *d_out = queries + size;
  const int64_t head = blockIdx.y, first = static_cast<int64_t>(blockIdx.x) * kRowsOfBlock;
  const int row = upper_row(), warp_row = row / kRowsOfWarp * kRowsOfWarp;
  begin_tile<kDim>(keys, a.keys.at(first, head), a.keys.stride, a.num_keys - first);
  begin_tile<kDim>(values, a.values.at(first, head), a.values.stride, a.num_keys - first);
  end_copies();
  const auto [begin, end] = queries_that_see(a, first, kRowsOfBlock);
  RowSums<kDim> dk, dv;
  for (int64_t query = begin; query < end; query += kRowsOfBlock) {
    __syncthreads();
    begin_tile<kDim>(queries, a.q.at(query, head), a.q.stride, a.num_queries - query);
    end_copies();
    begin_tile<kDim>(d_out, a.d_o.at(query, head), a.d_o.stride, a.num_queries - query);
    end_copies();
    statistics.read(a, query, head);
    wait_for_copies<1>();
    __syncthreads();
#pragma unroll 1
    for (int col = 0; col < kRowsOfBlock; col += cols) {
      RowSums<cols> probabilities, dp;
      multiply_transposed<kDim>(probabilities, keys, warp_row, queries + col * kPitch<kDim>);
      probabilities_of(probabilities, statistics, col, first + row, a.scale);
      if (col == 0) {
        wait_for_copies<0>();
        __syncthreads();
      }
      multiply<kDim>(dv, probabilities, d_out + col * kPitch<kDim>);
      multiply_transposed<kDim>(dp, values, warp_row, d_out + col * kPitch<kDim>);
      score_gradients_of(dp, probabilities, statistics, col, a.scale);
      multiply<kDim>(dk, dp, queries + col * kPitch<kDim>);
    }
  }
  wait_for_copies<0>();  // where there was no query
  if (first + row < a.num_keys && has_sequence(a, first + row)) {
    write_row<0>(a.dk.at(first + row, head), dk);
    write_row<0>(a.dv.at(first + row, head), dv);
  }
  if (first + row + 8 < a.num_keys && has_sequence(a, first + row + 8)) {
    write_row<2>(a.dk.at(first + row + 8, head), dk);
    write_row<2>(a.dv.at(first + row + 8, head), dv);
  }
}

}  // namespace

void attention_backward_tensor_core(Stream& stream, const Tensor& dq, const Tensor& dk, const Tensor& dv,
                                    const Tensor& d_o, const Tensor& delta, const Tensor& q,
                                    const Tensor& keys, const Tensor& values, const Tensor& lse,
                                    const AttentionLayout& layout, const QueryRow* rows) {
  const auto args = backward_args<bf16>(dq, dk, dv, d_o, delta, q, keys, values, lse, layout, rows);
  with_core_dim(args.head_dim, [&](auto dim) {
    constexpr int n = decltype(dim)::value;
    constexpr std::size_t bytes = 4 * kTileSize<n> * sizeof(bf16);
    launch_with_shared(stream, core_query_gradient_kernel<n>, core_grid(q.rows, layout.num_heads),
                       kBlockThreads, bytes, args);
    launch_with_shared(stream, core_key_gradient_kernel<n>, core_grid(keys.rows, layout.num_heads),
                       kBlockThreads, bytes, args);
  });
}

}  // namespace red::ops
