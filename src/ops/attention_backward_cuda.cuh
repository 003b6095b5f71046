// Private to attention's backward pass on a GPU: what its plain path and that by tensor cores share.
#pragma once

#include <cmath>

#include "ops/attention_cuda.cuh"

namespace red::ops {

template <class T>
struct BackwardArgs {
  HeadRows<const T> q, keys, values, d_o;
  HeadRows<T> dq, dk, dv;
  const float *lse, *delta;  // (h, Tq)
  int64_t lse_stride, delta_stride;
  const QueryRow* rows;      // (Tq)
  const int32_t* k_offsets;  // (num_sequences + 1)
  int64_t num_sequences, num_queries, num_keys, head_dim;
  float scale;
  bool vectors;
};

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

/// Of a tile of queries, in shared memory.
template <int kRows>
struct QueryStatistics {
  QueryRow rows[kRows];
  float lse[kRows], delta[kRows];

  template <class T>
  __device__ void read(const BackwardArgs<T>& a, int64_t first, int64_t head) {
    const auto i = static_cast<int64_t>(threadIdx.x), query = first + i;
    if (i >= kRows) return;
    const bool there = query < a.num_queries;
    rows[i] = there ? a.rows[query] : QueryRow{0, 0, 0, -1};
    lse[i] = there ? a.lse[head * a.lse_stride + query] : 0.0F;
    delta[i] = there ? a.delta[head * a.delta_stride + query] : 0.0F;
  }
};

struct QueryRange {
  int64_t begin, end;
};

/// The queries that see some of `count` keys from `first` on: ranges only move on, so they follow one
/// another.
template <class T>
__device__ QueryRange queries_that_see(const BackwardArgs<T>& a, int64_t first, int64_t count) {
  const auto is_past_first = [&](const QueryRow& r) { return r.end > first; };
  const auto is_past_last = [&](const QueryRow& r) { return r.begin >= first + count; };
  return {first_query(a.rows, a.num_queries, is_past_first),
          first_query(a.rows, a.num_queries, is_past_last)};
}

/// Whether the key belongs to a sequence: others have no gradient, and none is written.
template <class T>
__device__ bool has_sequence(const BackwardArgs<T>& a, int64_t key) {
  return key >= a.k_offsets[0] && key < a.k_offsets[a.num_sequences];
}

template <class T>
BackwardArgs<T> backward_args(const Tensor& dq, const Tensor& dk, const Tensor& dv, const Tensor& d_o,
                              const Tensor& delta, const Tensor& q, const Tensor& keys, const Tensor& values,
                              const Tensor& lse, const AttentionLayout& layout, const QueryRow* rows) {
  const int64_t k = checked_head_dim(q, layout);
  return {{q, k},
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
          layout.k_offsets,
          layout.num_sequences,
          q.rows,
          keys.rows,
          k,
          1.0F / std::sqrt(static_cast<float>(k)),
          heads_in_vectors(k, q, keys, values, d_o, dq, dk, dv)};
}

}  // namespace red::ops
