// The norm of a row that several ranks share, on a GPU: row_dots reads 2 c elements a token, split_norm reads
// and writes c, its backward pass reads 2 c and writes c. Bound by bytes. Shapes: see split_norm.hpp.
#include "ops/blocks.hpp"
#include "ops/cuda_reduce.cuh"
#include "ops/cuda_rows.cuh"
#include "ops/split_norm.hpp"

namespace red::ops {
namespace {

template <int kN, class T>
__global__ void __launch_bounds__(256)
    row_dots_kernel(RowsOf<float> dots, RowsOf<const T> a, RowsOf<const T> b, int64_t rows, int64_t cols) {
  for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    float sum = 0.0F;
    for_each_column<kN>(cols, [&](auto lanes, int64_t col) {
      constexpr int n = decltype(lanes)::value;
      float x[n], y[n];
      load(x, a.at(row, col));
      load(y, b.at(row, col));
#pragma unroll
      for (int i = 0; i < n; ++i) sum += x[i] * y[i];
    });
    sum = block_sum(sum);
    if (threadIdx.x == 0) dots(row) = sum;
  }
}

template <int kN, class T>
__global__ void split_norm_kernel(RowsOf<T> x, RowsOf<float> inv_rms, RowsOf<const float> squares,
                                  int64_t rows, int64_t cols, float width, float epsilon) {
  for_each_element<kN>(rows, cols, [&](auto lanes, int64_t row, int64_t col) {
    constexpr int n = decltype(lanes)::value;
    const float inverse = 1.0F / sqrtf(squares(row) / width + epsilon);
    if (col == 0) inv_rms(row) = inverse;
    float v[n];
    load(v, x.at(row, col));
#pragma unroll
    for (int i = 0; i < n; ++i) v[i] *= inverse;
    store(x.at(row, col), v);
  });
}

template <int kN, class T>
__global__ void split_norm_backward_kernel(RowsOf<T> dx, RowsOf<const T> y, RowsOf<const float> inv_rms,
                                           RowsOf<const float> dots, int64_t rows, int64_t cols,
                                           float width) {
  for_each_element<kN>(rows, cols, [&](auto lanes, int64_t row, int64_t col) {
    constexpr int n = decltype(lanes)::value;
    const float mean = dots(row) / width, scale = inv_rms(row);
    float v[n], along[n];
    load(v, dx.at(row, col));
    load(along, y.at(row, col));
#pragma unroll
    for (int i = 0; i < n; ++i) v[i] = (v[i] - along[i] * mean) * scale;
    store(dx.at(row, col), v);
  });
}

void check_column(const Tensor& column, const Tensor& x) {
  RED_CHECK(column.rows == x.rows && column.cols == 1 && column.dtype == DType::fp32,
            "({}, {}) {} for {} tokens", column.rows, column.cols, name_of(column.dtype), x.rows);
}

}  // namespace

void row_dots(Stream& stream, const Tensor& dots, const Tensor& a, const Tensor& b) {
  check_same_shape(a, b);
  check_same_dtype(a, b);
  check_column(dots, a);
  const auto run = [&](auto element, auto lanes) {
    using T = decltype(element);
    constexpr int n = decltype(lanes)::value;
    launch(stream, row_dots_kernel<n, T>, blocks_for(a.rows), threads_for(pieces(a.cols, n)),
           RowsOf<float>(dots), RowsOf<const T>(a), RowsOf<const T>(b), a.rows, a.cols);
  };
  with_lanes(a.dtype, run, a, b);
}

void split_norm(Stream& stream, const Tensor& x, const Tensor& inv_rms, const Tensor& squares, int64_t width,
                float epsilon) {
  check_column(inv_rms, x);
  check_column(squares, x);
  // Who reads a row's sum may come behind who writes its inverse.
  RED_CHECK(inv_rms.data != squares.data, "inv_rms in place of squares");
  const auto run = [&](auto element, auto lanes) {
    using T = decltype(element);
    constexpr int n = decltype(lanes)::value;
    const auto [grid, block] = grid_over(x.rows, x.cols, n);
    launch(stream, split_norm_kernel<n, T>, grid, block, RowsOf<T>(x), RowsOf<float>(inv_rms),
           RowsOf<const float>(squares), x.rows, x.cols, static_cast<float>(width), epsilon);
  };
  with_lanes(x.dtype, run, x);
}

void split_norm_backward(Stream& stream, const Tensor& dx, const Tensor& y, const Tensor& inv_rms,
                         const Tensor& dots, int64_t width) {
  check_same_shape(dx, y);
  check_same_dtype(dx, y);
  check_column(inv_rms, dx);
  check_column(dots, dx);
  const auto run = [&](auto element, auto lanes) {
    using T = decltype(element);
    constexpr int n = decltype(lanes)::value;
    const auto [grid, block] = grid_over(dx.rows, dx.cols, n);
    launch(stream, split_norm_backward_kernel<n, T>, grid, block, RowsOf<T>(dx), RowsOf<const T>(y),
           RowsOf<const float>(inv_rms), RowsOf<const float>(dots), dx.rows, dx.cols,
           static_cast<float>(width));
  };
  with_lanes(dx.dtype, run, dx, y);
}

}  // namespace red::ops
