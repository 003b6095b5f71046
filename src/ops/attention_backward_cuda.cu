// Attention's backward pass on a GPU, the plain path, taken where tensor cores are not. Two kernels, so that
// no sum needs atomics or an order of blocks: one has 32 queries of a head and makes dq, going over keys; the
// other has 32 keys and makes dk and dv, going over the queries that see them. Both make probabilities again.
// Bound by fp32 operations: 6 k and 8 k for each pair of query and key. Shapes: see attention.hpp.
#include "ops/attention_backward_cuda.cuh"
#include "ops/attention_library.hpp"
#include "ops/attention_tensor_core.hpp"

namespace red::ops {
namespace {

template <int kGroups, class T>
__global__ void __launch_bounds__(kTileThreads, 1) query_gradient_kernel(BackwardArgs<T> a) {
  GPU_DYN_SMEM(float, shared);
  __shared__ QueryRow query_rows[kTile];
  constexpr int size = kTile * kStride<kGroups>;
  float *queries = shared, *d_out = queries + size, *tile = d_out + size;
  const int row = static_cast<int>(threadIdx.x) / kShare, share = static_cast<int>(threadIdx.x) % kShare;
  const int64_t head = blockIdx.y, k = a.head_dim;
  const int64_t first = (static_cast<int64_t>(gridDim.x) - 1 - blockIdx.x) * kTile, query = first + row;
  const PlainQueryTile query_tile(query_rows, a.rows, first, a.num_queries);
  load_tile<kGroups>(queries, a.q.at(first, head), a.q.stride, a.num_queries - first, k, a.vectors);
  load_tile<kGroups>(d_out, a.d_o.at(first, head), a.d_o.stride, a.num_queries - first, k, a.vectors);
  const float lse = query < a.num_queries ? a.lse[head * a.lse_stride + query] : 0.0F;
  const float delta = query < a.num_queries ? a.delta[head * a.delta_stride + query] : 0.0F;
  __syncthreads();
  RowWeights<kGroups> weights(tile + size, row, share);
  RowShare<kGroups> dq;
  query_tile.for_each_key_tile([&](PlainQueryTile::Run run, int32_t key, int32_t count) {
    const KeyRange visible = query_tile.visible(run, row);
    float dp[kScores], s[kScores];
    load_tile<kGroups>(tile, a.values.at(key, head), a.values.stride, count, k, a.vectors);
    __syncthreads();
    dot_rows<kGroups>(dp, d_out + row * kStride<kGroups>, tile, share);
    __syncthreads();
    load_tile<kGroups>(tile, a.keys.at(key, head), a.keys.stride, count, k, a.vectors);
    __syncthreads();
    dot_rows<kGroups>(s, queries + row * kStride<kGroups>, tile, share);
#pragma unroll
    for (int j = 0; j < kScores; ++j) {
      const int32_t at = key + kShare * j + share;
      const bool sees = at >= visible.begin && at < visible.end;
      s[j] = sees ? expf(s[j] * a.scale - lse) * (dp[j] - delta) * a.scale : 0.0F;
    }
    weights.write(s);
    __syncthreads();
    dq.add(weights, tile, count, share);
    __syncthreads();
  });
  if (query_rows[row].sequence >= 0) dq.write(a.dq.at(query, head), k, share, a.vectors);
}

template <int kGroups, class T>
__global__ void __launch_bounds__(kTileThreads, 1) key_gradient_kernel(BackwardArgs<T> a) {
  GPU_DYN_SMEM(float, shared);
  __shared__ QueryStatistics<kTile> statistics;
  constexpr int size = kTile * kStride<kGroups>;
  float *keys = shared, *values = keys + size, *tile = values + size;
  const int row = static_cast<int>(threadIdx.x) / kShare, share = static_cast<int>(threadIdx.x) % kShare;
  const int64_t head = blockIdx.y, k = a.head_dim, first = static_cast<int64_t>(blockIdx.x) * kTile,
                key = first + row;
  load_tile<kGroups>(keys, a.keys.at(first, head), a.keys.stride, a.num_keys - first, k, a.vectors);
  load_tile<kGroups>(values, a.values.at(first, head), a.values.stride, a.num_keys - first, k, a.vectors);
  const auto [begin, end] = queries_that_see(a, first, kTile);
  RowWeights<kGroups> weights(tile + size, row, share);
  RowShare<kGroups> dk, dv;
  for (int64_t query = begin; query < end; query += kTile) {
    float s[kScores], p[kScores];
    __syncthreads();
    statistics.read(a, query, head);
    load_tile<kGroups>(tile, a.q.at(query, head), a.q.stride, a.num_queries - query, k, a.vectors);
    __syncthreads();
    dot_rows<kGroups>(s, keys + row * kStride<kGroups>, tile, share);
#pragma unroll
    for (int j = 0; j < kScores; ++j) {
      const int i = kShare * j + share;
      const bool sees = key >= statistics.rows[i].begin && key < statistics.rows[i].end;
      p[j] = sees ? expf(s[j] * a.scale - statistics.lse[i]) : 0.0F;
    }
    weights.write(p);
    __syncthreads();
    load_tile<kGroups>(tile, a.d_o.at(query, head), a.d_o.stride, a.num_queries - query, k, a.vectors);
    __syncthreads();
    dv.add(weights, tile, kTile, share);
    dot_rows<kGroups>(s, values + row * kStride<kGroups>, tile, share);
#pragma unroll
    for (int j = 0; j < kScores; ++j)
      s[j] = p[j] == 0.0F ? 0.0F : p[j] * (s[j] - statistics.delta[kShare * j + share]) * a.scale;
    __syncthreads();
    weights.write(s);
    load_tile<kGroups>(tile, a.q.at(query, head), a.q.stride, a.num_queries - query, k, a.vectors);
    __syncthreads();
    dk.add(weights, tile, kTile, share);
  }
  if (!has_sequence(a, key)) return;
  dk.write(a.dk.at(key, head), k, share, a.vectors);
  dv.write(a.dv.at(key, head), k, share, a.vectors);
}

void check_backward(const Tensor& dq, const Tensor& dk, const Tensor& dv, const Tensor& d_o,
                    const Tensor& delta, const Tensor& q, const Tensor& keys, const Tensor& values,
                    const Tensor& lse, const AttentionLayout& layout) {
  check_attention_matrix(dq, q.rows, q.cols, "dq");
  check_attention_matrix(d_o, q.rows, q.cols, "do");
  check_attention_matrix(keys, keys.rows, q.cols, "keys");
  check_attention_matrix(values, keys.rows, q.cols, "values");
  check_attention_matrix(dk, keys.rows, q.cols, "dk");
  check_attention_matrix(dv, keys.rows, q.cols, "dv");
  check_statistics(lse, layout, q, "lse");
  check_statistics(delta, layout, q, "delta");
  check_same_dtype(q, keys, values, d_o, dq, dk, dv);
}

}  // namespace

void attention_backward(Stream& stream, const Tensor& dq, const Tensor& dk, const Tensor& dv,
                        const Tensor& d_o, const Tensor& delta, const Tensor& q, const Tensor& keys,
                        const Tensor& values, const Tensor& lse, const AttentionLayout& layout,
                        const AttentionMask& mask, const AttentionOutput& output) {
  RED_CHECK(layout.k_head_rows == 0, "the backward pass does not read a cache");
  check_layout_on_host(layout, mask);
  const int64_t k = checked_head_dim(q, layout);
  check_backward(dq, dk, dv, d_o, delta, q, keys, values, lse, layout);
  if (layout.num_sequences == 0) return;
  if (attention_backward_by_library(stream, dq, dk, dv, d_o, output, q, keys, values, lse, layout, mask))
    return;
  const ArenaScope scope(stream.scratch());
  auto* rows = reinterpret_cast<QueryRow*>(stream.scratch().allocate<int32_t>(q.rows, 4).as<int32_t>());
  find_query_rows(stream, rows, q.rows, layout, mask);
  if (tensor_cores_take(k, q, keys, values) && in_vectors(8, d_o)) {
    attention_backward_tensor_core(stream, dq, dk, dv, d_o, delta, q, keys, values, lse, layout, rows);
    return;
  }
  const auto run = [&](auto element, auto groups) {
    using T = decltype(element);
    constexpr int n = decltype(groups)::value;
    const auto args = backward_args<T>(dq, dk, dv, d_o, delta, q, keys, values, lse, layout, rows);
    launch_tiled<n>(stream, query_gradient_kernel<n, T>, q.rows, layout.num_heads, 3, args);
    launch_tiled<n>(stream, key_gradient_kernel<n, T>, keys.rows, layout.num_heads, 3, args);
  };
  with_groups(k, [&](auto groups) { with_element(q.dtype, [&](auto element) { run(element, groups); }); });
}

}  // namespace red::ops
