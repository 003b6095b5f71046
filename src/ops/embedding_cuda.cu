// Embedding lookup and its gradient on a GPU. Gather: one pass, bound by bytes, 2 d elements a token.
// Scatter: a block owns the rows of the table that are `bucket` modulo the number of buckets, looks through
// all ids, in order, for its own, and adds up their gradients in that order: no two blocks meet, and no sum
// depends on which came first. Bytes: d of each token and 2 d of each row that is met, and the ids once for
// each bucket, from the L2 cache. What is slow is one very frequent token, whose rows follow one another:
// four are read at a time. Shapes: n tokens, d width; ids (n); table (V, d).
#include "ops/blocks.hpp"
#include "ops/cuda_reduce.cuh"
#include "ops/cuda_rows.cuh"
#include "ops/embedding.hpp"

namespace red::ops {
namespace {

template <int kN, class T>
__global__ void gather_kernel(RowsOf<T> x, RowsOf<const T> table, const int32_t* ids, int64_t first_row,
                              int64_t tokens, int64_t width, int64_t table_rows) {
  for_each_element<kN>(tokens, width, [&](auto lanes, int64_t token, int64_t col) {
    const int64_t entry = ids[token] - first_row;
    float v[decltype(lanes)::value] = {};
    if (entry >= 0 && entry < table_rows) load(v, table.at(entry, col));
    store(x.at(token, col), v);
  });
}

constexpr int kThreads = 256, kAtOnce = 4;
constexpr int64_t kBuckets = 512;

/// Tokens of a block's own rows among kThreads of them, in order.
struct Found {
  int count;
  int64_t token[kThreads];
  int64_t row[kThreads];
};

/// Fills `found` from ids[first ...]; all threads of the block.
__device__ void find_own(Found& found, int* of_warp, const int32_t* ids, int64_t first, int64_t tokens,
                         int64_t first_row, int64_t table_rows) {
  const int64_t token = first + threadIdx.x;
  const int64_t row = token < tokens ? ids[token] - first_row : -1;
  const bool own = row >= 0 && row < table_rows && row % gridDim.x == blockIdx.x;
  const unsigned lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const unsigned of_own = __ballot_sync(kWholeWarp, own ? 1 : 0);
  if (lane == 0) of_warp[warp] = __popc(of_own);
  __syncthreads();
  int place = __popc(of_own & ((1U << lane) - 1U)), total = 0;
  for (unsigned w = 0; w < kThreads / kWarp; ++w) {
    if (w < warp) place += of_warp[w];
    total += of_warp[w];
  }
  if (own) {
    found.token[place] = token;
    found.row[place] = row;
  }
  if (threadIdx.x == 0) found.count = total;
  __syncthreads();
}

/// d_table += dx of the found tokens, in kN columns from `col` on.
template <int kN, class T>
__device__ void add_found(const Found& found, RowsOf<float> d_table, RowsOf<const T> dx, int64_t col) {
  float sum[kN] = {};
  int64_t row = -1;
  for (int first = 0; first < found.count; first += kAtOnce) {
    float v[kAtOnce][kN] = {};
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      if (first + i < found.count) load(v[i], dx.at(found.token[first + i], col));
    }
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      if (first + i >= found.count) break;
      if (found.row[first + i] != row) {
        if (row >= 0) store(d_table.at(row, col), sum);
        row = found.row[first + i];
        load(sum, d_table.at(row, col));
      }
#pragma unroll
      for (int j = 0; j < kN; ++j) sum[j] += v[i][j];
    }
  }
  if (row >= 0) store(d_table.at(row, col), sum);
}

template <int kN, class T>
__global__ void __launch_bounds__(kThreads)
    scatter_add_kernel(RowsOf<float> d_table, RowsOf<const T> dx, const int32_t* ids, int64_t first_row,
                       int64_t tokens, int64_t width, int64_t table_rows) {
  __shared__ Found found;
  __shared__ int of_warp[kThreads / kWarp];
  for (int64_t first = 0; first < tokens; first += kThreads) {
    find_own(found, of_warp, ids, first, tokens, first_row, table_rows);
    for_each_column<kN>(
        width, [&](auto lanes, int64_t col) { add_found<decltype(lanes)::value>(found, d_table, dx, col); });
    __syncthreads();  // `found` is written again
  }
}

}  // namespace

void embedding_gather(Stream& stream, const Tensor& x, const Tensor& table, const int32_t* ids,
                      int64_t first_row) {
  RED_CHECK(x.cols == table.cols, "x ({}, {}), table ({}, {})", x.rows, x.cols, table.rows, table.cols);
  check_same_dtype(x, table);
  const auto run = [&](auto element, auto lanes) {
    using T = decltype(element);
    constexpr int n = decltype(lanes)::value;
    const auto [grid, block] = grid_over(x.rows, x.cols, n);
    launch(stream, gather_kernel<n, T>, grid, block, RowsOf<T>(x), RowsOf<const T>(table), ids, first_row,
           x.rows, x.cols, table.rows);
  };
  with_lanes(x.dtype, run, x, table);
}

void embedding_scatter_add(Stream& stream, const Tensor& d_table, const Tensor& dx, const int32_t* ids,
                           int64_t first_row) {
  RED_CHECK(dx.cols == d_table.cols, "dx ({}, {}), table ({}, {})", dx.rows, dx.cols, d_table.rows,
            d_table.cols);
  RED_CHECK(d_table.dtype == DType::fp32, "d_table holds {}", name_of(d_table.dtype));
  const auto run = [&](auto element, auto lanes) {
    using T = decltype(element);
    launch(stream, scatter_add_kernel<decltype(lanes)::value, T>, blocks_for(d_table.rows, kBuckets),
           kThreads, RowsOf<float>(d_table), RowsOf<const T>(dx), ids, first_row, dx.rows, dx.cols,
           d_table.rows);
  };
  with_lanes(dx.dtype, run, dx, d_table);
}

}  // namespace red::ops
