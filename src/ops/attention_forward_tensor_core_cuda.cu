// Attention's forward pass by tensor cores: bf16, heads of 64 or 128 columns. Bound by their operations, 4 k
// for each pair of query and key, and by exponentials: one for each pair. Values are copied to shared memory
// while scores are made; what else there is to wait for the other blocks of a multiprocessor hide. Shapes:
// see attention.hpp.
#include <cmath>
#include <limits>

#include "ops/attention_tensor_core.cuh"
#include "ops/attention_tensor_core.hpp"

namespace red::ops {
namespace {

struct CoreForwardArgs {
  HeadRows<const bf16> q, keys, values;
  HeadRows<bf16> o;
  float* lse;  // (h, Tq)
  int64_t lse_stride;
  const QueryRow* rows;  // (Tq)
  int64_t num_queries;
  float scale;  // of scores, times log2(e)
};

struct LargestOfTwo {
  __device__ float operator()(float a, float b) const { return fmaxf(a, b); }
};

constexpr int kRowLanes = 4;  // that hold a row

/// One of the two rows of a lane; scores are in units of log(2).
struct CoreSoftmax {
  /// s <- 2^(scale s - max) where visible, 0 elsewhere; kFirst: of the lane's sums. Returns what was summed
  /// before is to be multiplied with.
  template <int kFirst>
  __device__ float take(Scores& s, KeyRange visible, int32_t key, float scale) {
    const bool whole = visible.begin <= key && visible.end >= key + kRowsOfBlock;
    float tile_max = max;
#pragma unroll
    for (int i = 0; i < kRowsOfBlock / 8; ++i) {
#pragma unroll
      for (int j = kFirst; j < kFirst + 2; ++j) {
        const int32_t at = key + column_of(i, j);
        float& score = s.value[i][j];
        const bool sees = whole || (at >= visible.begin && at < visible.end);
        score = sees ? score * scale : -std::numeric_limits<float>::infinity();
        tile_max = fmaxf(tile_max, score);
      }
    }
    const float next = warp_reduce(tile_max, LargestOfTwo(), kRowLanes);
    const float rescale = max == next ? 1.0F : exp2f(max - next);
    // Where nothing is visible yet there is nothing to subtract: 2^-inf is 0.
    const float shift = next == -std::numeric_limits<float>::infinity() ? 0.0F : next;
    float tile_sum = 0.0F;
#pragma unroll
    for (int i = 0; i < kRowsOfBlock / 8; ++i) {
#pragma unroll
      for (int j = kFirst; j < kFirst + 2; ++j) {
        s.value[i][j] = exp2f(s.value[i][j] - shift);
        tile_sum += s.value[i][j];
      }
    }
    sum = sum * rescale + tile_sum;
    max = next;
    return rescale;
  }

  float max = -std::numeric_limits<float>::infinity();
  float sum = 0.0F;  // of this lane's columns
};

/// kFirst: of the lane's sums.
template <int kFirst, int kDim>
__device__ void finish_row(const CoreForwardArgs& a, const QueryRow& own, int64_t query, int64_t head,
                           RowSums<kDim>& out, const CoreSoftmax& softmax) {
  const float sum = warp_sum(softmax.sum, kRowLanes);  // before lanes part
  if (own.sequence < 0) return;
  const bool sees = own.begin < own.end;
  const float inverse = sees ? 1.0F / sum : 0.0F;
  kFirst == 0 ? out.scale(inverse, 1.0F) : out.scale(1.0F, inverse);
  write_row<kFirst>(a.o.at(query, head), out);
  if (threadIdx.x % kRowLanes == 0) {
    constexpr float log_of_2 = 0.693147180559945F;
    a.lse[head * a.lse_stride + query] =
        sees ? (softmax.max + log2f(sum)) * log_of_2 : -std::numeric_limits<float>::infinity();
  }
}

template <int kDim>
__global__ void __launch_bounds__(kBlockThreads) core_forward_kernel(CoreForwardArgs a) {
  GPU_DYN_SMEM(bf16, shared);
  __shared__ QueryRow query_rows[kRowsOfBlock];
  const int64_t head = blockIdx.y, first = (static_cast<int64_t>(gridDim.x) - 1 - blockIdx.x) * kRowsOfBlock;
  const int row = upper_row();
  const CoreQueryTile query_tile(query_rows, a.rows, first, a.num_queries);
  bf16 *keys = shared, *values = shared + kTileSize<kDim>;
  begin_tile<kDim>(keys, a.q.at(first, head), a.q.stride, a.num_queries - first);
  end_copies();
  wait_for_copies<0>();
  __syncthreads();
  RowFragments<kDim> queries;
  queries.read(keys, row / kRowsOfWarp * kRowsOfWarp);
  __syncthreads();
  RowSums<kDim> out;
  CoreSoftmax upper, lower;
  query_tile.for_each_key_tile([&](CoreQueryTile::Run run, int32_t key, int32_t count) {
    begin_tile<kDim>(keys, a.keys.at(key, head), a.keys.stride, count);
    end_copies();
    begin_tile<kDim>(values, a.values.at(key, head), a.values.stride, count);
    end_copies();
    wait_for_copies<1>();
    __syncthreads();
    Scores scores;
    multiply_transposed<kDim>(scores, queries, keys);
    const float of_upper = upper.take<0>(scores, query_tile.visible(run, row), key, a.scale);
    const float of_lower = lower.take<2>(scores, query_tile.visible(run, row + 8), key, a.scale);
    out.scale(of_upper, of_lower);
    wait_for_copies<0>();
    __syncthreads();
    multiply<kDim>(out, scores, values);
    __syncthreads();
  });
  finish_row<0>(a, query_rows[row], first + row, head, out, upper);
  finish_row<2>(a, query_rows[row + 8], first + row + 8, head, out, lower);
}

}  // namespace

bool tensor_cores_take(int64_t head_dim, const Tensor& q, const Tensor& keys, const Tensor& values) {
  return q.dtype == DType::bf16 && (head_dim == 64 || head_dim == 128) && in_vectors(8, q, keys, values);
}

void attention_forward_tensor_core(Stream& stream, const Tensor& o, const Tensor& lse, const Tensor& q,
                                   const Tensor& keys, const Tensor& values, const AttentionLayout& layout,
                                   const QueryRow* rows) {
  const int64_t k = checked_head_dim(q, layout);
  constexpr float log2_of_e = 1.44269504088896F;
  const CoreForwardArgs args{{q, k},
                             {keys, k, layout.k_head_rows},
                             {values, k, layout.k_head_rows},
                             {o, k},
                             lse.as<float>(),
                             lse.row_stride,
                             rows,
                             q.rows,
                             log2_of_e / std::sqrt(static_cast<float>(k))};
  with_core_dim(k, [&](auto dim) {
    constexpr int n = decltype(dim)::value;
    launch_with_shared(stream, core_forward_kernel<n>, core_grid(q.rows, layout.num_heads), kBlockThreads,
                       2 * kTileSize<n> * sizeof(bf16), args);
  });
}

}  // namespace red::ops
