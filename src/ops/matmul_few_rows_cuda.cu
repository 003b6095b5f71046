// Products with at most 16 rows on a GPU, bound by the bytes of b while there are fewer than about 4 rows,
// and by the fp32 units with more. b^T (n, k): a warp makes one column of c, its lanes sharing the dot
// products with a row of b. b (k, n): a block makes 32 vectors of columns, its warps sharing the rows of b. A
// row's sum has one order, whatever the other rows are. Shapes: a (m, k), op(b) (k, n), c (m, n).
#include "ops/cuda_reduce.cuh"
#include "ops/cuda_rows.cuh"
#include "ops/matmul_few_rows.hpp"

namespace red::ops {
namespace {

constexpr int kWarps = 8;

template <class T>
struct Product {
  RowsOf<const T> a, b;
  int64_t rows, n, k;
  float alpha;
};

/// Of rows first_row ... first_row + kRows - 1 of c.
template <int kRows, int kN, class C, class T>
__device__ void dot_columns(RowsOf<C> c, const Product<T>& p, int64_t first_row) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  for (int64_t col = blockIdx.x * kWarps + warp; col < p.n; col += gridDim.x * kWarps) {
    float sums[kRows] = {};
    for_each_column<kN>(p.k, lane, kWarp, [&](auto lanes, int64_t i) {
      constexpr int n = decltype(lanes)::value;
      float w[n], x[n];
      load(w, p.b.at(col, i));
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        if (first_row + r >= p.rows) break;
        load(x, p.a.at(first_row + r, i));
#pragma unroll
        for (int j = 0; j < n; ++j) sums[r] += x[j] * w[j];
      }
    });
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const float sum = warp_sum(sums[r]);
      if (lane == 0 && first_row + r < p.rows) c(first_row + r, col) = rounded_to<C>(p.alpha * sum);
    }
  }
}

template <int kRows, int kN, class C, class T>
__global__ void __launch_bounds__(kWarps* kWarp, 1) few_rows_transposed_kernel(RowsOf<C> c, Product<T> p) {
  for (int64_t row = 0; row < p.rows; row += kRows) dot_columns<kRows, kN>(c, p, row);
}

/// Columns first_col ... of kRows rows of c.
template <int kRows, int kN, class C, class T>
__device__ void sum_rows_of_b(RowsOf<C> c, const Product<T>& p, int64_t first_row, int64_t first_col,
                              float (*of_warp)[kRows][kWarp * kN]) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  const int64_t col = first_col + lane * kN;
  float sums[kRows][kN] = {};
  for (int64_t i = warp; i < p.k && col < p.n; i += kWarps) {
    float w[kN];
    load_some(w, p.b.at(i, col), p.n - col);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      if (first_row + r >= p.rows) break;
      const float x = p.a(first_row + r, i);
#pragma unroll
      for (int j = 0; j < kN; ++j) sums[r][j] += x * w[j];
    }
  }
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
#pragma unroll
    for (int j = 0; j < kN; ++j) of_warp[warp][r][lane * kN + j] = sums[r][j];
  }
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < kRows * kWarp * kN; i += static_cast<int>(blockDim.x)) {
    const int r = i / (kWarp * kN), j = i % (kWarp * kN);
    if (first_row + r >= p.rows || first_col + j >= p.n) continue;
    float total = 0.0F;
    for (int w = 0; w < kWarps; ++w) total += of_warp[w][r][j];
    c(first_row + r, first_col + j) = rounded_to<C>(p.alpha * total);
  }
  __syncthreads();  // of_warp is written again
}

template <int kRows, int kN, class C, class T>
__global__ void __launch_bounds__(kWarps* kWarp, 1) few_rows_kernel(RowsOf<C> c, Product<T> p) {
  __shared__ float of_warp[kWarps][kRows][kWarp * kN];
  constexpr int64_t tile = kWarp * kN;
  for (int64_t col = blockIdx.x * tile; col < p.n; col += gridDim.x * tile) {
    for (int64_t row = 0; row < p.rows; row += kRows) sum_rows_of_b<kRows, kN>(c, p, row, col, of_warp);
  }
}

template <class C, class T, int kN>
void run(Stream& stream, const Tensor& c, const Product<T>& p, bool transposed) {
  const RowsOf<C> out(c);
  if (transposed) {
    launch(stream, few_rows_transposed_kernel<8, kN, C, T>, blocks_for(pieces(p.n, kWarps)), kWarps * kWarp,
           out, p);
  } else {
    constexpr int lanes = kN < 4 ? kN : 4;  // shared memory for 4 rows: 16 KiB
    launch(stream, few_rows_kernel<4, lanes, C, T>, blocks_for(pieces(p.n, kWarp * lanes)), kWarps * kWarp,
           out, p);
  }
}

}  // namespace

void matmul_few_rows(Stream& stream, const Tensor& c, const Tensor& a, const Tensor& b, Transpose transpose_b,
                     float alpha) {
  const bool transposed = transpose_b == Transpose::yes;
  const int64_t n = c.cols, k = a.cols;
  RED_CHECK(c.rows == a.rows && (transposed ? b.rows : b.cols) == n && (transposed ? b.cols : b.rows) == k,
            "c ({}, {}), a ({}, {}), b ({}, {}){}", c.rows, n, a.rows, k, b.rows, b.cols,
            transposed ? "^T" : "");
  RED_CHECK(c.rows <= kFewRows, "{} rows, at most {} are few", c.rows, kFewRows);
  RED_CHECK(is_element(c.dtype) && is_element(a.dtype) && a.dtype == b.dtype, "{} = {} {}", name_of(c.dtype),
            name_of(a.dtype), name_of(b.dtype));
  if (c.rows == 0) return;
  const auto multiply = [&](auto element, auto lanes) {
    using T = decltype(element);
    constexpr int count = decltype(lanes)::value;
    const Product<T> product{RowsOf<const T>(a), RowsOf<const T>(b), c.rows, n, k, alpha};
    c.dtype == DType::bf16 ? run<bf16, T, count>(stream, c, product, transposed)
                           : run<float, T, count>(stream, c, product, transposed);
  };
  with_lanes(a.dtype, multiply, a, b);
}

std::size_t few_rows_scratch_bytes(DType) {
  return 0;
}

bool few_rows_pay(int64_t rows, DType dtype) {
  // Up to here the bytes of b take longer than the products; not yet measured on a GPU.
  return rows <= (dtype == DType::bf16 ? 4 : 8);
}

}  // namespace red::ops
