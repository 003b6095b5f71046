// Private to attention on a GPU: what its plain kernels share. A block has 32 rows of one head, 4 threads for
// each, and goes over tiles of 32 rows of the other side; tiles lie in shared memory as fp32, padded with
// zeros to whole groups of 16 columns. Shapes: Tq query tokens, k head width; tiles (kTile, kStride).
#pragma once

#include "ops/attention_ranges.hpp"
#include "ops/cuda_reduce.cuh"
#include "ops/cuda_rows.cuh"

namespace red::ops {

inline constexpr int kTile = 32, kShare = 4;  // rows of a tile, threads of a row
inline constexpr int kTileThreads = kTile * kShare;
inline constexpr int kScores = kTile / kShare;   // of a row, that one thread has: keys kShare j + share
inline constexpr int kWeightStride = kTile + 4;  // floats, of a row of weights

/// Most columns of a head.
inline constexpr int64_t kMostHeadDim = 256;

/// Floats from a tile's row to the next; 16 bytes more than a power of two, so that rows begin in different
/// banks.
template <int kGroups>
inline constexpr int kStride = 16 * kGroups + 4;

/// What one query sees: keys begin ... end - 1 among all keys, of its sequence's first head. Tiles of keys
/// are counted from `origin`, the sequence's first key, so that a row's sums do not depend on what lies
/// before its sequence.
struct QueryRow {
  int32_t begin, end, origin, sequence;  // sequence -1: the token belongs to none
};

/// rows (Tq) for all queries.
void find_query_rows(Stream& stream, QueryRow* rows, int64_t num_queries, const AttentionLayout& layout,
                     const AttentionMask& mask);
std::size_t query_rows_bytes(int64_t num_queries);

/// One matrix of an attention, seen head by head: (tokens, h k), or with head_rows (rows, k).
template <class T>
struct HeadRows {
  HeadRows(const Tensor& t, int64_t head_dim, int64_t head_rows = 0)
      : data(reinterpret_cast<T*>(t.data)),
        stride(t.row_stride),
        head_stride(head_rows > 0 ? head_rows * t.row_stride : head_dim) {}
  __device__ T* at(int64_t token, int64_t head) const { return data + token * stride + head * head_stride; }

  T* data;
  int64_t stride, head_stride;
};

/// Whether heads of width k of all of them can be read 4 elements at a time.
template <class... Tensors>
bool heads_in_vectors(int64_t k, const Tensors&... tensors) {
  return k % 4 == 0 && in_vectors(4, tensors...);
}

/// tile (kTile, kStride) = `count` rows of k elements, zeros behind them; all threads of the block.
template <int kGroups, class T>
__device__ void load_tile(float* tile, const T* from, int64_t stride, int64_t count, int64_t k,
                          bool vectors) {
  constexpr int quads = 4 * kGroups;  // of a row
  for (int i = static_cast<int>(threadIdx.x); i < kTile * quads; i += kTileThreads) {
    const int row = i / quads, col = i % quads * 4;
    float v[4] = {};
    if (row < count && col < k) {
      const T* p = from + row * stride + col;
      if (vectors) {
        load(v, p);
      } else {
#pragma unroll
        for (int j = 0; j < 4; ++j) v[j] = col + j < k ? static_cast<float>(p[j]) : 0.0F;
      }
    }
    store(tile + row * kStride<kGroups> + col, v);
  }
}

/// s[j] = own row . row kShare j + share of the tile
template <int kGroups>
__device__ void dot_rows(float (&s)[kScores], const float* own, const float* tile, int share) {
#pragma unroll
  for (float& x : s) x = 0.0F;
  for (int col = 0; col < 16 * kGroups; col += 4) {
    float a[4], b[4];
    load(a, own + col);
#pragma unroll
    for (int j = 0; j < kScores; ++j) {
      load(b, tile + (kShare * j + share) * kStride<kGroups> + col);
      s[j] += a[0] * b[0] + a[1] * b[1] + a[2] * b[2] + a[3] * b[3];
    }
  }
}

/// The weights of a row, one for each row of the other side's tile: thread `share` has made those of rows
/// kShare j + share. All kShare threads read them in shared memory, or of heads so wide that three tiles fill
/// it (99 KiB is all that a block gets on compute capability 8.6, 8.9 and 12.0) in each other's registers.
template <int kGroups>
class RowWeights {
 public:
  static constexpr bool kInRegisters = kGroups > 8;
  /// Floats of shared memory for all rows.
  static constexpr int kFloats = kInRegisters ? 0 : kTile * kWeightStride;

  __device__ RowWeights(float* shared, int row, int share)
      : row_(shared + row * kWeightStride), share_(share) {}

  /// In shared memory they are there behind a barrier.
  __device__ void write(const float (&w)[kScores]) {
#pragma unroll
    for (int j = 0; j < kScores; ++j) {
      if constexpr (kInRegisters) {
        own_[j] = w[j];
      } else {
        row_[kShare * j + share_] = w[j];
      }
    }
  }

  /// body(row of the tile, weight) for the first `count`. All threads of the block take part.
  template <class Body>
  __device__ void for_each(int count, const Body& body) const {
    if constexpr (kInRegisters) {
#pragma unroll
      for (int j = 0; j < kScores; ++j) {
        for (int share = 0; share < kShare && kShare * j + share < count; ++share)
          body(kShare * j + share, __shfl_sync(kWholeWarp, own_[j], share, kShare));
      }
    } else {
      for (int i = 0; i < count; ++i) body(i, row_[i]);
    }
  }

 private:
  float* row_;
  int share_;
  float own_[kInRegisters ? kScores : 1];
};

/// A row of k columns that kShare threads hold: thread `share` has columns 16 i + 4 share ...
template <int kGroups>
struct RowShare {
  __device__ void scale(float factor) {
#pragma unroll
    for (auto& group : v) {
#pragma unroll
      for (float& x : group) x *= factor;
    }
  }

  /// += weights (count) tile
  __device__ void add(const RowWeights<kGroups>& weights, const float* tile, int count, int share) {
    weights.for_each(count, [&](int j, float weight) {
#pragma unroll
      for (int i = 0; i < kGroups; ++i) {
        float x[4];
        load(x, tile + j * kStride<kGroups> + 16 * i + 4 * share);
#pragma unroll
        for (int c = 0; c < 4; ++c) v[i][c] += weight * x[c];
      }
    });
  }

  template <class T>
  __device__ void write(T* to, int64_t k, int share, bool vectors) const {
#pragma unroll
    for (int i = 0; i < kGroups; ++i) {
      const int col = 16 * i + 4 * share;
      if (col >= k) continue;
      if (vectors) {
        store(to + col, v[i]);
        continue;
      }
#pragma unroll
      for (int c = 0; c < 4; ++c) {
        if (col + c < k) to[col + c] = rounded_to<T>(v[i][c]);
      }
    }
  }

  float v[kGroups][4] = {};
};

/// The kRows queries of a block's tile, and which of them belong to one sequence: only those share tiles of
/// keys, kKeys each.
template <int kRows, int kKeys>
class QueryTile {
 public:
  /// Reads rows first ... first + kRows - 1 into `shared` (kRows); a barrier follows before it is used.
  __device__ QueryTile(QueryRow* shared, const QueryRow* all, int64_t first, int64_t num_queries)
      : rows_(shared) {
    const auto i = static_cast<int64_t>(threadIdx.x);
    if (i < kRows) shared[i] = first + i < num_queries ? all[first + i] : QueryRow{0, 0, 0, -1};
  }

  /// Queries of one sequence, in the tile.
  struct Run {
    int begin, end;
  };

  /// What a row sees of the keys that a run goes over.
  __device__ KeyRange visible(const Run& run, int row) const {
    return row >= run.begin && row < run.end ? KeyRange{rows_[row].begin, rows_[row].end} : KeyRange{};
  }

  /// body(run, first key, number of keys) for each tile of keys that some query of a run sees. All threads
  /// take part.
  template <class Body>
  __device__ void for_each_key_tile(const Body& body) const {
    for (Run run{0, 0}; run.begin < kRows; run.begin = run.end) {
      const QueryRow first = rows_[run.begin];
      while (run.end < kRows && rows_[run.end].sequence == first.sequence) ++run.end;
      if (first.sequence < 0) continue;
      const int32_t last = rows_[run.end - 1].end;
      for (int32_t key = first.origin + (first.begin - first.origin) / kKeys * kKeys; key < last;
           key += kKeys)
        body(run, key, min(kKeys, last - key));
    }
  }

 private:
  const QueryRow* rows_;
};
using PlainQueryTile = QueryTile<kTile, kTile>;

/// body(Lanes<groups>()) with enough groups of 16 columns for heads of width k.
template <class Body>
void with_groups(int64_t k, const Body& body) {
  RED_CHECK(k <= kMostHeadDim, "heads of width {}, at most {} on a GPU", k, kMostHeadDim);
  if (k <= 16) return body(Lanes<1>());
  if (k <= 64) return body(Lanes<4>());
  if (k <= 128) return body(Lanes<8>());
  body(Lanes<16>());
}

/// Launches a kernel of kTileThreads threads with `tiles` tiles and the weights of their rows in shared
/// memory.
template <int kGroups, class Kernel, class... Args>
void launch_tiled(Stream& stream, Kernel kernel, int64_t num_rows, int64_t num_heads, int tiles,
                  const Args&... args) {
  const int floats = tiles * kTile * kStride<kGroups> + RowWeights<kGroups>::kFloats;
  launch_with_shared(stream, kernel,
                     dim3(static_cast<unsigned>(pieces(num_rows, kTile)), static_cast<unsigned>(num_heads)),
                     dim3(kTileThreads), static_cast<std::size_t>(floats) * sizeof(float), args...);
}

/// What the CPU checks of a layout, as far as the host knows it.
void check_layout_on_host(const AttentionLayout& layout, const AttentionMask& mask);

/// o and lse where no sequence has more than a few queries on average.
void attention_few_queries(Stream& stream, const Tensor& o, const Tensor& lse, const Tensor& q,
                           const Tensor& keys, const Tensor& values, const AttentionLayout& layout,
                           const AttentionMask& mask);
std::size_t attention_few_queries_bytes(int64_t num_heads, int64_t head_dim, int64_t num_sequences,
                                        int64_t longest_keys);

/// Queries of a sequence that are few.
inline constexpr int64_t kFewQueries = 4;

/// The head width k; checks q (Tq, h k) against the number of heads.
inline int64_t checked_head_dim(const Tensor& q, const AttentionLayout& layout) {
  RED_CHECK(q.cols > 0 && q.cols % layout.num_heads == 0, "width {} for {} heads", q.cols, layout.num_heads);
  return q.cols / layout.num_heads;
}

inline void check_attention_matrix(const Tensor& t, int64_t rows, int64_t cols, const char* name) {
  RED_CHECK(t.rows == rows && t.cols == cols, "{} ({}, {}), expected ({}, {})", name, t.rows, t.cols, rows,
            cols);
}

/// (h, Tq) statistics.
inline void check_statistics(const Tensor& t, const AttentionLayout& layout, const Tensor& q,
                             const char* name) {
  RED_CHECK(t.rows == layout.num_heads && t.cols == q.rows && t.dtype == DType::fp32,
            "{} ({}, {}) {} for {} heads, {} queries", name, t.rows, t.cols, name_of(t.dtype),
            layout.num_heads, q.rows);
}

}  // namespace red::ops
