// Attention of few queries on a GPU, as when one token is generated at a time: bound by reading the keys and
// values once, 2 k elements for each key and head. A block has one query of one head and a block of 512 keys;
// where that gives too few blocks, blocks of keys lie side by side and are joined afterwards, in the same
// order and so to the same bits as when one block takes them one after another. Shapes: see attention.hpp.
#include <cmath>
#include <limits>

#include "ops/attention_cuda.cuh"

namespace red::ops {
namespace {

constexpr int kThreads = 128, kKeyLanes = 8;  // lanes that share a key's product
constexpr int32_t kKeyBlock = 512;
constexpr int64_t kManyPairs = 1024;  // of query and head: enough blocks without cutting the keys

template <class T>
struct FewArgs {
  HeadRows<const T> q, keys, values;
  HeadRows<T> o;
  float* lse;  // (h, Tq)
  int64_t lse_stride;
  AttentionLayout layout;
  AttentionMask mask;
  int64_t num_queries, head_dim;
  float scale;
  bool vectors;     // whether heads can be read 16 bytes at a time
  float* partials;  // (Tq h, splits, k + 2): out, max, sum; null where a block takes all keys
  int splits;
};

/// Keys that a query sees, among all of the first head, and where its sequence's begin.
struct QueryKeys {
  int32_t begin = 0, end = 0, origin = 0;
  bool there = false;
};

__device__ QueryKeys keys_of(const AttentionLayout& layout, const AttentionMask& mask, int64_t query) {
  const int32_t *first = layout.q_offsets, *last = first + layout.num_sequences + 1;
  const int64_t s = std::upper_bound(first, last, static_cast<int32_t>(query)) - first - 1;
  if (s < 0 || s >= layout.num_sequences) return {};
  const AttentionSequence sequence(layout, mask, s);
  const KeyRange range = sequence.visible(query - sequence.first_query());
  const auto origin = static_cast<int32_t>(sequence.first_key());
  return {origin + range.begin, origin + range.end, origin, true};
}

struct FewShared {
  float weights[kKeyBlock];
  float slices[kThreads];
};

/// Sums over visible keys of one block: max and sum of exp, and out (k) in `out`, by all threads.
struct BlockSums {
  float max, sum;
};

/// to = columns col ... of a head; 0 behind its end. Which thread has which column, and so the order of a
/// sum, does not depend on how they can be read.
template <class T>
__device__ void load_columns(float (&to)[kLanesOf<T>], const T* head, int64_t col, const FewArgs<T>& a) {
  if (a.vectors) return load(to, head + col);
#pragma unroll
  for (int i = 0; i < kLanesOf<T>; ++i)
    to[i] = col + i < a.head_dim ? static_cast<float>(head[col + i]) : 0.0F;
}

/// weights[j] = q . key begin + j, for j < count
template <class T>
__device__ void score_keys(FewShared& shared, const FewArgs<T>& a, const T* q, int64_t begin, int count,
                           int64_t head) {
  const int lane = static_cast<int>(threadIdx.x) % kKeyLanes,
            group = static_cast<int>(threadIdx.x) / kKeyLanes;
  constexpr int groups = kThreads / kKeyLanes;
  for (int first = 0; first < count; first += groups) {
    const int j = first + group;
    float dot = 0.0F;
    if (j < count) {
      const T* key = a.keys.at(begin + j, head);
      for (int64_t col = lane * kLanesOf<T>; col < a.head_dim; col += kKeyLanes * kLanesOf<T>) {
        float x[kLanesOf<T>], y[kLanesOf<T>];
        load_columns(x, q, col, a);
        load_columns(y, key, col, a);
#pragma unroll
        for (int i = 0; i < kLanesOf<T>; ++i) dot += x[i] * y[i];
      }
    }
    dot = warp_sum(dot, kKeyLanes);
    if (lane == 0 && j < count) shared.weights[j] = dot * a.scale;
  }
  __syncthreads();
}

struct LargestOfBlock {
  __device__ float operator()(float a, float b) const { return fmaxf(a, b); }
  template <class T>
  static __device__ T nothing() {
    return -std::numeric_limits<T>::infinity();
  }
};

/// weights <- exp(weights - max)
__device__ BlockSums exponentiate(FewShared& shared, int count) {
  float max = LargestOfBlock::nothing<float>(), sum = 0.0F;
  for (int j = static_cast<int>(threadIdx.x); j < count; j += kThreads) max = fmaxf(max, shared.weights[j]);
  max = block_reduce(max, LargestOfBlock());
  for (int j = static_cast<int>(threadIdx.x); j < count; j += kThreads) {
    const float p = expf(shared.weights[j] - max);
    shared.weights[j] = p;
    sum += p;
  }
  return {max, block_sum(sum)};
}

/// change(col, value) with the weights' sums of values, one thread for each column: threads that follow one
/// another read some columns each, and as many keys at a time as there are threads for; their sums are joined
/// in order.
template <class T, class Change>
__device__ void sum_values(FewShared& shared, const FewArgs<T>& a, int64_t begin, int count, int64_t head,
                           const Change& change) {
  constexpr int kN = kLanesOf<T>;
  const auto k = static_cast<int>(a.head_dim), vectors = (k + kN - 1) / kN;
  for (int first = 0; first < vectors; first += kThreads) {
    const int width = min(kThreads, vectors - first), slices = kThreads / width;
    const int vector = static_cast<int>(threadIdx.x) % width, slice = static_cast<int>(threadIdx.x) / width;
    const int col = (first + vector) * kN;
    float sums[kN] = {};
    for (int j = slice; slice < slices && j < count; j += slices) {
      float v[kN];
      load_columns(v, a.values.at(begin + j, head), col, a);
#pragma unroll
      for (int i = 0; i < kN; ++i) sums[i] += shared.weights[j] * v[i];
    }
    // One element of the vectors at a time: shared memory for kThreads numbers.
#pragma unroll
    for (int i = 0; i < kN; ++i) {
      __syncthreads();
      shared.slices[threadIdx.x] = sums[i];
      __syncthreads();
      if (static_cast<int>(threadIdx.x) >= width || col + i >= k) continue;
      float total = 0.0F;
      for (int s = 0; s < slices; ++s) total += shared.slices[s * width + vector];
      change(col + i, total);
    }
  }
  __syncthreads();
}

/// Joins what is known of keys so far with those behind them.
struct Join {
  __device__ Join(BlockSums state, BlockSums next)
      : max(fmaxf(state.max, next.max)),
        of_state(state.max == max ? 1.0F : expf(state.max - max)),
        of_next(next.max == max ? 1.0F : expf(next.max - max)),
        sum(state.sum * of_state + next.sum * of_next) {}
  __device__ float out(float state, float next) const { return state * of_state + next * of_next; }
  float max, of_state, of_next, sum;
};

/// out (k) and its softmax's state, of the keys in [begin, end), kKeyBlock at a time from `origin` on.
template <class T>
__device__ BlockSums few_keys(FewShared& shared, float* out, const FewArgs<T>& a, int64_t query, int64_t head,
                              int32_t origin, int32_t begin, int32_t end) {
  BlockSums state{LargestOfBlock::nothing<float>(), 0.0F};
  for (int64_t col = threadIdx.x; col < a.head_dim; col += kThreads) out[col] = 0.0F;
  __syncthreads();
  bool first = true;
  for (int32_t block = origin + (begin - origin) / kKeyBlock * kKeyBlock; block < end; block += kKeyBlock) {
    const int32_t from = max(begin, block), to = min(end, block + kKeyBlock);
    if (from >= to) continue;
    score_keys(shared, a, a.q.at(query, head), from, to - from, head);
    const BlockSums next = exponentiate(shared, to - from);
    const Join join(state, next);
    sum_values(shared, a, from, to - from, head,
               [&](int64_t col, float value) { out[col] = first ? value : join.out(out[col], value); });
    state = first ? next : BlockSums{join.max, join.sum};
    first = false;
  }
  return state;
}

template <class T>
__device__ void finish(const FewArgs<T>& a, int64_t query, int64_t head, const float* out, BlockSums sums,
                       bool sees) {
  const float inverse = sees ? 1.0F / sums.sum : 0.0F;
  T* o = a.o.at(query, head);
  for (int64_t col = threadIdx.x; col < a.head_dim; col += kThreads)
    o[col] = rounded_to<T>(out[col] * inverse);
  if (threadIdx.x == 0) {
    a.lse[head * a.lse_stride + query] =
        sees ? sums.max + logf(sums.sum) : -std::numeric_limits<float>::infinity();
  }
}

/// Blocks: (pair of query and head, split of the keys).
template <class T>
__global__ void __launch_bounds__(kThreads) few_kernel(FewArgs<T> a) {
  __shared__ FewShared shared;
  __shared__ float own_out[kMostHeadDim];
  const int64_t query = blockIdx.x / a.layout.num_heads, head = blockIdx.x % a.layout.num_heads;
  const QueryKeys keys = keys_of(a.layout, a.mask, query);
  if (!keys.there) return;
  if (a.partials == nullptr) {
    const BlockSums sums = few_keys(shared, own_out, a, query, head, keys.origin, keys.begin, keys.end);
    __syncthreads();
    return finish(a, query, head, own_out, sums, keys.begin < keys.end);
  }
  float* partial = a.partials + (static_cast<int64_t>(blockIdx.x) * a.splits + blockIdx.y) * (a.head_dim + 2);
  const int32_t block = keys.origin + static_cast<int32_t>(blockIdx.y) * kKeyBlock;
  const int32_t begin = max(keys.begin, block), end = min(keys.end, block + kKeyBlock);
  const BlockSums sums = few_keys(shared, partial, a, query, head, keys.origin, begin, max(begin, end));
  if (threadIdx.x == 0) {
    partial[a.head_dim] = sums.max;
    partial[a.head_dim + 1] = sums.sum;
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads) join_kernel(FewArgs<T> a) {
  __shared__ float out[kMostHeadDim];
  const int64_t query = blockIdx.x / a.layout.num_heads, head = blockIdx.x % a.layout.num_heads;
  const QueryKeys keys = keys_of(a.layout, a.mask, query);
  if (!keys.there) return;
  BlockSums state{LargestOfBlock::nothing<float>(), 0.0F};
  bool first = true;
  for (int64_t col = threadIdx.x; col < a.head_dim; col += kThreads) out[col] = 0.0F;
  for (int split = 0; split < a.splits; ++split) {
    const int32_t block = keys.origin + split * kKeyBlock;
    if (max(keys.begin, block) >= min(keys.end, block + kKeyBlock)) continue;
    const float* partial =
        a.partials + (static_cast<int64_t>(blockIdx.x) * a.splits + split) * (a.head_dim + 2);
    const BlockSums next{partial[a.head_dim], partial[a.head_dim + 1]};
    const Join join(state, next);
    for (int64_t col = threadIdx.x; col < a.head_dim; col += kThreads)
      out[col] = first ? partial[col] : join.out(out[col], partial[col]);
    state = first ? next : BlockSums{join.max, join.sum};
    first = false;
  }
  finish(a, query, head, out, state, keys.begin < keys.end);
}

}  // namespace

void attention_few_queries(Stream& stream, const Tensor& o, const Tensor& lse, const Tensor& q,
                           const Tensor& keys, const Tensor& values, const AttentionLayout& layout,
                           const AttentionMask& mask) {
  const int64_t k = checked_head_dim(q, layout), pairs = q.rows * layout.num_heads;
  RED_CHECK(k <= kMostHeadDim, "heads of width {}, at most {} on a GPU", k, kMostHeadDim);
  // How long packed sequences are the host does not know.
  const bool split = layout.k_head_rows > 0 && pairs < kManyPairs;
  const auto splits = static_cast<int>(split ? pieces(layout.k_head_rows, kKeyBlock) : 1);
  const ArenaScope scope(stream.scratch());
  float* partials = split ? stream.scratch().allocate<float>(pairs * splits, k + 2).as<float>() : nullptr;
  const auto run = [&](auto element) {
    using T = decltype(element);
    constexpr int n = kLanesOf<T>;
    const FewArgs<T> args{{q, k},
                          {keys, k, layout.k_head_rows},
                          {values, k, layout.k_head_rows},
                          {o, k},
                          lse.as<float>(),
                          lse.row_stride,
                          layout,
                          mask,
                          q.rows,
                          k,
                          1.0F / std::sqrt(static_cast<float>(k)),
                          k % n == 0 && in_vectors(n, q, keys, values),
                          partials,
                          splits};
    launch(stream, few_kernel<T>, dim3(static_cast<unsigned>(pairs), static_cast<unsigned>(splits)), kThreads,
           args);
    if (split) launch(stream, join_kernel<T>, static_cast<unsigned>(pairs), kThreads, args);
  };
  with_element(q.dtype, run);
}

std::size_t attention_few_queries_bytes(int64_t num_heads, int64_t head_dim, int64_t num_sequences,
                                        int64_t longest_keys) {
  const int64_t pairs = std::min(num_sequences * kFewQueries * num_heads, kManyPairs - 1);
  const int64_t splits = std::max<int64_t>(1, pieces(longest_keys, kKeyBlock));
  return Arena::rounded(static_cast<std::size_t>(pairs * splits * (head_dim + 2)) * sizeof(float));
}

}  // namespace red::ops
