// Attention's forward pass on a GPU, the plain path: fp32 and bf16, any head width up to 256, every mask,
// packed keys and keys in a cache. A block has 32 queries of one head and goes over tiles of 32 keys with an
// online softmax. Bound by fp32 operations: 4 k for each pair of query and key. Shapes: see attention.hpp.
#include <cmath>
#include <limits>

#include "ops/attention_cuda.cuh"
#include "ops/attention_library.hpp"
#include "ops/attention_tensor_core.hpp"

namespace red::ops {
namespace {

template <class T>
struct ForwardArgs {
  HeadRows<const T> q, keys, values;
  HeadRows<T> o;
  float* lse;  // (h, Tq)
  int64_t lse_stride;
  const QueryRow* rows;  // (Tq)
  int64_t num_queries, head_dim;
  float scale;
  bool vectors;
};

/// Of the kShare threads of a row, which are neighbouring lanes.
struct LargestOfTwo {
  __device__ float operator()(float a, float b) const { return fmaxf(a, b); }
};

/// A row's largest score so far, and its denominator relative to it.
struct Softmax {
  /// s <- exp(scale s - max) where key + its place is visible, 0 elsewhere; what was summed before is to be
  /// multiplied with the result.
  __device__ float take(float (&s)[kScores], KeyRange visible, int32_t key, float scale, int share) {
    const float lowest = -std::numeric_limits<float>::infinity();
    float tile_max = lowest;
#pragma unroll
    for (int j = 0; j < kScores; ++j) {
      const int32_t at = key + kShare * j + share;
      const bool sees = at >= visible.begin && at < visible.end;
      if (sees) tile_max = fmaxf(tile_max, s[j] * scale);
    }
    const float next = warp_reduce(fmaxf(max, tile_max), LargestOfTwo(), kShare);
    const float rescale = max == next ? 1.0F : expf(max - next);
    float tile_sum = 0.0F;
#pragma unroll
    for (int j = 0; j < kScores; ++j) {
      const int32_t at = key + kShare * j + share;
      const bool sees = at >= visible.begin && at < visible.end;
      s[j] = sees ? expf(s[j] * scale - next) : 0.0F;
      tile_sum += s[j];
    }
    sum = sum * rescale + warp_sum(tile_sum, kShare);
    max = next;
    return rescale;
  }

  float max = -std::numeric_limits<float>::infinity(), sum = 0.0F;
};

template <int kGroups, class T>
__global__ void __launch_bounds__(kTileThreads, 1) forward_kernel(ForwardArgs<T> a) {
  GPU_DYN_SMEM(float, shared);
  __shared__ QueryRow query_rows[kTile];
  constexpr int size = kTile * kStride<kGroups>;
  float *queries = shared, *tile = queries + size;
  const int row = static_cast<int>(threadIdx.x) / kShare, share = static_cast<int>(threadIdx.x) % kShare;
  const int64_t head = blockIdx.y, k = a.head_dim;
  // With a causal mask the last queries have the most keys: they begin first.
  const int64_t first = (static_cast<int64_t>(gridDim.x) - 1 - blockIdx.x) * kTile;
  const PlainQueryTile query_tile(query_rows, a.rows, first, a.num_queries);
  load_tile<kGroups>(queries, a.q.at(first, head), a.q.stride, a.num_queries - first, k, a.vectors);
  __syncthreads();
  RowWeights<kGroups> weights(tile + size, row, share);
  RowShare<kGroups> out;
  Softmax softmax;
  query_tile.for_each_key_tile([&](PlainQueryTile::Run run, int32_t key, int32_t count) {
    load_tile<kGroups>(tile, a.keys.at(key, head), a.keys.stride, count, k, a.vectors);
    __syncthreads();
    float s[kScores];
    dot_rows<kGroups>(s, queries + row * kStride<kGroups>, tile, share);
    out.scale(softmax.take(s, query_tile.visible(run, row), key, a.scale, share));
    weights.write(s);
    __syncthreads();
    load_tile<kGroups>(tile, a.values.at(key, head), a.values.stride, count, k, a.vectors);
    __syncthreads();
    out.add(weights, tile, count, share);
    __syncthreads();
  });
  const QueryRow own = query_rows[row];
  if (own.sequence < 0) return;
  const bool sees = own.begin < own.end;
  out.scale(sees ? 1.0F / softmax.sum : 0.0F);
  out.write(a.o.at(first + row, head), k, share, a.vectors);
  if (share == 0) {
    a.lse[head * a.lse_stride + first + row] =
        sees ? softmax.max + logf(softmax.sum) : -std::numeric_limits<float>::infinity();
  }
}

void forward_tiled(Stream& stream, const Tensor& o, const Tensor& lse, const Tensor& q, const Tensor& keys,
                   const Tensor& values, const AttentionLayout& layout, const AttentionMask& mask) {
  const int64_t k = checked_head_dim(q, layout);
  const ArenaScope scope(stream.scratch());
  auto* rows = reinterpret_cast<QueryRow*>(stream.scratch().allocate<int32_t>(q.rows, 4).as<int32_t>());
  find_query_rows(stream, rows, q.rows, layout, mask);
  if (tensor_cores_take(k, q, keys, values)) {
    attention_forward_tensor_core(stream, o, lse, q, keys, values, layout, rows);
    return;
  }
  const auto run = [&](auto element, auto groups) {
    using T = decltype(element);
    constexpr int n = decltype(groups)::value;
    const ForwardArgs<T> args{{q, k},
                              {keys, k, layout.k_head_rows},
                              {values, k, layout.k_head_rows},
                              {o, k},
                              lse.as<float>(),
                              lse.row_stride,
                              rows,
                              q.rows,
                              k,
                              1.0F / std::sqrt(static_cast<float>(k)),
                              heads_in_vectors(k, q, keys, values, o)};
    launch_tiled<n>(stream, forward_kernel<n, T>, q.rows, layout.num_heads, 2, args);
  };
  with_groups(k, [&](auto groups) { with_element(q.dtype, [&](auto element) { run(element, groups); }); });
}

}  // namespace

void attention_forward(Stream& stream, const Tensor& o, const Tensor& lse, const Tensor& q,
                       const Tensor& keys, const Tensor& values, const AttentionLayout& layout,
                       const AttentionMask& mask) {
  check_layout_on_host(layout, mask);
  const int64_t k = checked_head_dim(q, layout), key_cols = layout.k_head_rows > 0 ? k : q.cols;
  check_attention_matrix(o, q.rows, q.cols, "o");
  check_attention_matrix(keys, keys.rows, key_cols, "keys");
  check_attention_matrix(values, keys.rows, key_cols, "values");
  check_statistics(lse, layout, q, "lse");
  check_same_dtype(q, keys, values, o);
  if (q.rows == 0 || layout.num_sequences == 0) return;
  if (attention_forward_by_library(stream, o, lse, q, keys, values, layout, mask)) return;
  const bool few = q.rows <= kFewQueries * layout.num_sequences;
  few ? attention_few_queries(stream, o, lse, q, keys, values, layout, mask)
      : forward_tiled(stream, o, lse, q, keys, values, layout, mask);
}

}  // namespace red::ops
