// Attention's backward pass on a GPU, the plain path. Two kernels, so that no sum needs atomics or an order
// of blocks: one has 32 queries of a head and makes dq, going over keys; the other has 32 keys and makes dk
// and dv, going over the queries that see them. Both make probabilities again. Bound by fp32 operations: 6 k
// and 8 k for each pair of query and key. Shapes: see attention.hpp.
#include <cmath>

#include "ops/attention_cuda.cuh"

namespace red::ops {
namespace {

template <class T>
struct BackwardArgs {
  HeadRows<const T> q, keys, values, d_o;
  HeadRows<T> dq, dk, dv;
  const float *lse, *delta;  // (h, Tq)
  int64_t lse_stride, delta_stride;
  const QueryRow* rows;                  // (Tq)
  const int32_t *q_offsets, *k_offsets;  // (num_sequences + 1)
  int64_t num_sequences, num_queries, num_keys, head_dim;
  float scale;
  bool vectors;
};

template <int kGroups, class T>
__global__ void __launch_bounds__(kTileThreads) query_gradient_kernel(BackwardArgs<T> a) {
  GPU_DYN_SMEM(float, shared);
  __shared__ QueryRow query_rows[kTile];
  constexpr int size = kTile * kStride<kGroups>;
  float *queries = shared, *d_out = queries + size, *tile = d_out + size, *weights = tile + size;
  const int row = static_cast<int>(threadIdx.x) / kShare, share = static_cast<int>(threadIdx.x) % kShare;
  const int64_t head = blockIdx.y, k = a.head_dim;
  const int64_t first = (static_cast<int64_t>(gridDim.x) - 1 - blockIdx.x) * kTile, query = first + row;
  const QueryTile query_tile(query_rows, a.rows, first, a.num_queries);
  load_tile<kGroups>(queries, a.q.at(first, head), a.q.stride, a.num_queries - first, k, a.vectors);
  load_tile<kGroups>(d_out, a.d_o.at(first, head), a.d_o.stride, a.num_queries - first, k, a.vectors);
  const float lse = query < a.num_queries ? a.lse[head * a.lse_stride + query] : 0.0F;
  const float delta = query < a.num_queries ? a.delta[head * a.delta_stride + query] : 0.0F;
  __syncthreads();
  RowShare<kGroups> dq;
  query_tile.for_each_key_tile(row, [&](KeyRange visible, int32_t key, int32_t count) {
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
    write_weights(weights, s, row, share);
    __syncthreads();
    dq.add(weights + row * kWeightStride, tile, count, share);
    __syncthreads();
  });
  if (query_rows[row].sequence >= 0) dq.write(a.dq.at(query, head), k, share, a.vectors);
}

/// The first query whose range fulfils `is_past`, which stays true from there on.
template <class Past>
__device__ int64_t first_query(const QueryRow* rows, int64_t num_queries, const Past& is_past) {
  int64_t begin = 0, end = num_queries;
  while (begin < end) {
    const int64_t middle = begin + (end - begin) / 2;
    if (is_past(rows[middle])) {
      end = middle;
    } else {
      begin = middle + 1;
    }
  }
  return begin;
}

/// Of a tile of queries.
struct QueryStatistics {
  QueryRow rows[kTile];
  float lse[kTile], delta[kTile];

  template <class T>
  __device__ void read(const BackwardArgs<T>& a, int64_t first, int64_t head) {
    const auto i = static_cast<int64_t>(threadIdx.x), query = first + i;
    if (i >= kTile) return;
    const bool there = query < a.num_queries;
    rows[i] = there ? a.rows[query] : QueryRow{0, 0, 0, -1};
    lse[i] = there ? a.lse[head * a.lse_stride + query] : 0.0F;
    delta[i] = there ? a.delta[head * a.delta_stride + query] : 0.0F;
  }
};

template <int kGroups, class T>
__global__ void __launch_bounds__(kTileThreads) key_gradient_kernel(BackwardArgs<T> a) {
  GPU_DYN_SMEM(float, shared);
  __shared__ QueryStatistics statistics;
  constexpr int size = kTile * kStride<kGroups>;
  float *keys = shared, *values = keys + size, *tile = values + size, *weights = tile + size;
  const int row = static_cast<int>(threadIdx.x) / kShare, share = static_cast<int>(threadIdx.x) % kShare;
  const int64_t head = blockIdx.y, k = a.head_dim, first = static_cast<int64_t>(blockIdx.x) * kTile,
                key = first + row;
  load_tile<kGroups>(keys, a.keys.at(first, head), a.keys.stride, a.num_keys - first, k, a.vectors);
  load_tile<kGroups>(values, a.values.at(first, head), a.values.stride, a.num_keys - first, k, a.vectors);
  // Ranges only move on, so the queries that see a tile follow one another.
  const auto is_past_first = [&](const QueryRow& r) { return r.end > first; };
  const auto is_past_last = [&](const QueryRow& r) { return r.begin >= first + kTile; };
  const int64_t begin = first_query(a.rows, a.num_queries, is_past_first);
  const int64_t end = first_query(a.rows, a.num_queries, is_past_last);
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
    write_weights(weights, p, row, share);
    __syncthreads();
    load_tile<kGroups>(tile, a.d_o.at(query, head), a.d_o.stride, a.num_queries - query, k, a.vectors);
    __syncthreads();
    dv.add(weights + row * kWeightStride, tile, kTile, share);
    dot_rows<kGroups>(s, values + row * kStride<kGroups>, tile, share);
#pragma unroll
    for (int j = 0; j < kScores; ++j)
      s[j] = p[j] == 0.0F ? 0.0F : p[j] * (s[j] - statistics.delta[kShare * j + share]) * a.scale;
    __syncthreads();
    write_weights(weights, s, row, share);
    load_tile<kGroups>(tile, a.q.at(query, head), a.q.stride, a.num_queries - query, k, a.vectors);
    __syncthreads();
    dk.add(weights + row * kWeightStride, tile, kTile, share);
  }
  if (key < a.k_offsets[0] || key >= a.k_offsets[a.num_sequences]) return;
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
                        const AttentionMask& mask) {
  RED_CHECK(layout.k_head_rows == 0, "the backward pass does not read a cache");
  check_layout_on_host(layout, mask);
  const int64_t k = checked_head_dim(q, layout);
  check_backward(dq, dk, dv, d_o, delta, q, keys, values, lse, layout);
  if (layout.num_sequences == 0) return;
  const ArenaScope scope(stream.scratch());
  auto* rows = reinterpret_cast<QueryRow*>(stream.scratch().allocate<int32_t>(q.rows, 4).as<int32_t>());
  find_query_rows(stream, rows, q.rows, layout, mask);
  const auto run = [&](auto element, auto groups) {
    using T = decltype(element);
    constexpr int n = decltype(groups)::value;
    const BackwardArgs<T> args{{q, k},
                               {keys, k},
                               {values, k},
                               {d_o, k},
                               {dq, k},
                               {dk, k},
                               {dv, k},
                               lse.as<float>(),
                               delta.as<float>(),
                               lse.row_stride,
                               delta.row_stride,
                               rows,
                               layout.q_offsets,
                               layout.k_offsets,
                               layout.num_sequences,
                               q.rows,
                               keys.rows,
                               k,
                               1.0F / std::sqrt(static_cast<float>(k)),
                               heads_in_vectors(k, q, keys, values, d_o, dq, dk, dv)};
    launch_tiled<n>(stream, query_gradient_kernel<n, T>, q.rows, layout.num_heads, 3, 1, args);
    launch_tiled<n>(stream, key_gradient_kernel<n, T>, keys.rows, layout.num_heads, 3, 1, args);
  };
  with_groups(k, [&](auto groups) { with_element(q.dtype, [&](auto element) { run(element, groups); }); });
}

}  // namespace red::ops
