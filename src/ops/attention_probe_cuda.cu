// What stands beside attention's passes on a GPU: which keys a query sees; delta, bound by the bytes of do
// and o; and the probe that makes some probabilities again, which is not in a hurry. Shapes: see
// attention.hpp.
#include <cmath>

#include "ops/attention_cuda.cuh"

namespace red::ops {
namespace {

__global__ void query_rows_kernel(QueryRow* rows, int64_t num_queries, AttentionLayout layout,
                                  AttentionMask mask) {
  const int64_t query = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (query >= num_queries) return;
  const int32_t *first = layout.q_offsets, *last = first + layout.num_sequences + 1;
  const int64_t s = std::upper_bound(first, last, static_cast<int32_t>(query)) - first - 1;
  if (s < 0 || s >= layout.num_sequences) {
    // Before all sequences, or behind them: such tokens see nothing, and ranges still only move on.
    const int32_t at = s < 0 ? 0 : layout.k_offsets[layout.num_sequences];
    rows[query] = {at, at, at, -1};
    return;
  }
  const AttentionSequence sequence(layout, mask, s);
  const KeyRange range = sequence.visible(query - sequence.first_query());
  const auto origin = static_cast<int32_t>(sequence.first_key());
  rows[query] = {origin + range.begin, origin + range.end, origin, static_cast<int32_t>(s)};
}

struct DeltaArgs {
  RowsOf<float> delta;          // (h, n)
  RowsOf<const float> inv_rms;  // (n, h), (n, 1), or null
  bool per_head;
  int64_t tokens, num_heads, head_dim;
};

/// A warp takes one head of one token.
template <int kN, class T>
__global__ void __launch_bounds__(256) delta_kernel(DeltaArgs a, RowsOf<const T> d_o, RowsOf<const T> o) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int64_t warps = static_cast<int64_t>(gridDim.x) * (blockDim.x / kWarp);
  const int64_t first = static_cast<int64_t>(blockIdx.x) * (blockDim.x / kWarp) + threadIdx.x / kWarp;
  for (int64_t i = first; i < a.tokens * a.num_heads; i += warps) {
    const int64_t token = i / a.num_heads, head = i % a.num_heads;
    float dot = 0.0F;
    for_each_column<kN>(a.head_dim, lane, kWarp, [&](auto lanes, int64_t col) {
      float x[decltype(lanes)::value], y[decltype(lanes)::value];
      load(x, d_o.at(token, head * a.head_dim + col));
      load(y, o.at(token, head * a.head_dim + col));
#pragma unroll
      for (int j = 0; j < decltype(lanes)::value; ++j) dot += x[j] * y[j];
    });
    dot = warp_sum(dot);
    if (lane != 0) continue;
    if (a.inv_rms.data != nullptr) dot /= a.inv_rms(token, a.per_head ? head : 0);
    a.delta(head, token) = dot;
  }
}

template <class T>
struct ProbeArgs {
  RowsOf<float> probabilities;  // (num_rows, S)
  HeadRows<const T> q, keys;
  RowsOf<const float> lse;  // (h, Tq)
  AttentionLayout layout;
  AttentionMask mask;
  int64_t sequence, head, first_row, num_rows, num_columns, head_dim;
  float scale;
};

/// A block takes one row; its threads take keys. A row or a key that the sequence does not have: no number.
template <class T>
__global__ void probabilities_kernel(ProbeArgs<T> a) {
  const AttentionSequence sequence(a.layout, a.mask, a.sequence);
  const bool fits =
      a.first_row + a.num_rows <= sequence.num_queries() && a.num_columns == sequence.num_keys();
  for (int64_t row = blockIdx.x; row < a.num_rows; row += gridDim.x) {
    const KeyRange range = fits ? sequence.visible(a.first_row + row) : KeyRange{};
    const int64_t token = sequence.first_query() + a.first_row + row;
    for (int64_t key = threadIdx.x; key < a.num_columns; key += blockDim.x) {
      float p = fits ? 0.0F : std::numeric_limits<float>::quiet_NaN();
      if (key >= range.begin && key < range.end) {
        const T *x = a.q.at(token, a.head), *y = a.keys.at(sequence.first_key() + key, a.head);
        float dot = 0.0F;
        for (int64_t i = 0; i < a.head_dim; ++i) dot += static_cast<float>(x[i]) * static_cast<float>(y[i]);
        p = expf(dot * a.scale - a.lse(a.head, token));
      }
      a.probabilities(row, key) = p;
    }
  }
}

}  // namespace

void check_layout_on_host(const AttentionLayout& layout, const AttentionMask& mask) {
  RED_CHECK(layout.num_heads > 0 && layout.num_sequences >= 0, "{} heads, {} sequences", layout.num_heads,
            layout.num_sequences);
  if (layout.num_sequences == 0) return;
  RED_CHECK(layout.q_offsets != nullptr && layout.k_offsets != nullptr, "no offsets");
  if (layout.k_head_rows > 0) {
    RED_CHECK(layout.k_lengths != nullptr, "a cache without lengths");
    RED_CHECK(mask.k_documents == nullptr, "documents of cached keys");
  } else {
    RED_CHECK(layout.k_lengths == nullptr, "lengths of keys without a cache");
  }
  RED_CHECK(mask.prefix == nullptr || mask.causal, "a prefix needs the causal mask");
  RED_CHECK((mask.q_documents == nullptr) == (mask.k_documents == nullptr), "documents of one side alone");
}

void find_query_rows(Stream& stream, QueryRow* rows, int64_t num_queries, const AttentionLayout& layout,
                     const AttentionMask& mask) {
  launch(stream, query_rows_kernel, static_cast<unsigned>(pieces(num_queries, 128)), 128, rows, num_queries,
         layout, mask);
}

std::size_t query_rows_bytes(int64_t num_queries) {
  return Arena::rounded(static_cast<std::size_t>(num_queries) * sizeof(QueryRow));
}

std::size_t attention_scratch_bytes(int, int64_t num_heads, int64_t head_dim, int64_t num_sequences,
                                    int64_t longest_keys, DType, int64_t num_queries) {
  return std::max(query_rows_bytes(num_queries),
                  attention_few_queries_bytes(num_heads, head_dim, num_sequences, longest_keys));
}

void attention_delta(Stream& stream, const Tensor& delta, const Tensor& d_o, const Tensor& o,
                     const Tensor* inv_rms) {
  const int64_t num_heads = delta.rows;
  RED_CHECK(num_heads > 0 && o.cols % num_heads == 0 && delta.cols == o.rows, "delta ({}, {}) for o ({}, {})",
            delta.rows, delta.cols, o.rows, o.cols);
  check_attention_matrix(d_o, o.rows, o.cols, "do");
  check_same_dtype(o, d_o);
  // One column: the norm was over all heads together.
  const bool per_head = inv_rms != nullptr && inv_rms->cols != 1;
  if (inv_rms != nullptr) check_attention_matrix(*inv_rms, o.rows, per_head ? num_heads : 1, "inv_rms");
  const int64_t k = o.cols / num_heads;
  const DeltaArgs args{RowsOf<float>(delta),
                       RowsOf<const float>(inv_rms == nullptr ? Tensor{} : *inv_rms),
                       per_head,
                       o.rows,
                       num_heads,
                       k};
  const auto run = [&](auto element, auto lanes) {
    using T = decltype(element);
    const auto blocks = blocks_for(pieces(o.rows * num_heads, 256 / kWarp));
    const auto run_with = [&](auto count) {
      launch(stream, delta_kernel<decltype(count)::value, T>, blocks, 256, args, RowsOf<const T>(d_o),
             RowsOf<const T>(o));
    };
    k % decltype(lanes)::value == 0 ? run_with(lanes) : run_with(Lanes<1>());
  };
  with_lanes(o.dtype, run, o, d_o);
}

void attention_probabilities(Stream& stream, const Tensor& probabilities, const Tensor& q, const Tensor& keys,
                             const Tensor& lse, const AttentionLayout& layout, const AttentionMask& mask,
                             int64_t sequence, int64_t head, int64_t first_row) {
  RED_CHECK(layout.k_head_rows == 0, "the probe does not read a cache");
  check_layout_on_host(layout, mask);
  const int64_t k = checked_head_dim(q, layout);
  check_attention_matrix(keys, keys.rows, q.cols, "keys");
  check_same_dtype(q, keys);
  check_statistics(lse, layout, q, "lse");
  RED_CHECK(sequence >= 0 && sequence < layout.num_sequences && head >= 0 && head < layout.num_heads,
            "sequence {} of {}, head {} of {}", sequence, layout.num_sequences, head, layout.num_heads);
  RED_CHECK(first_row >= 0 && first_row + probabilities.rows <= q.rows && probabilities.cols <= keys.rows,
            "rows {} + {} of {}, {} columns for {} keys", first_row, probabilities.rows, q.rows,
            probabilities.cols, keys.rows);
  const auto run = [&](auto element) {
    using T = decltype(element);
    const ProbeArgs<T> args{RowsOf<float>(probabilities),
                            {q, k},
                            {keys, k},
                            RowsOf<const float>(lse),
                            layout,
                            mask,
                            sequence,
                            head,
                            first_row,
                            probabilities.rows,
                            probabilities.cols,
                            k,
                            1.0F / std::sqrt(static_cast<float>(k))};
    launch(stream, probabilities_kernel<T>, blocks_for(probabilities.rows), threads_for(probabilities.cols),
           args);
  };
  with_element(q.dtype, run);
}

}  // namespace red::ops
