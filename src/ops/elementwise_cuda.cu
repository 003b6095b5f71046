// fill, copy and add on a GPU: one pass over (rows, cols) each, bound by bytes.
#include "ops/blocks.hpp"
#include "ops/cuda_rows.cuh"
#include "ops/elementwise.hpp"

namespace red::ops {
namespace {

template <int kN, class T>
__global__ void fill_kernel(RowsOf<T> y, int64_t rows, int64_t cols, float value) {
  for_each_element<kN>(rows, cols, [&](auto lanes, int64_t row, int64_t col) {
    float v[decltype(lanes)::value];
    for (float& x : v) x = value;
    store(y.at(row, col), v);
  });
}

template <int kN, class Y, class X>
__global__ void copy_kernel(RowsOf<Y> y, RowsOf<const X> x, int64_t rows, int64_t cols) {
  for_each_element<kN>(rows, cols, [&](auto lanes, int64_t row, int64_t col) {
    float v[decltype(lanes)::value];
    load(v, x.at(row, col));
    store(y.at(row, col), v);
  });
}

__global__ void copy_doubles_kernel(RowsOf<double> y, RowsOf<const double> x, int64_t rows, int64_t cols) {
  for_each_element<1>(rows, cols, [&](auto, int64_t row, int64_t col) { y(row, col) = x(row, col); });
}

template <int kN, class T, class B>
__global__ void add_kernel(RowsOf<T> y, RowsOf<const T> a, RowsOf<const B> b, int64_t rows, int64_t cols) {
  for_each_element<kN>(rows, cols, [&](auto lanes, int64_t row, int64_t col) {
    float v[decltype(lanes)::value], other[decltype(lanes)::value];
    load(v, a.at(row, col));
    load(other, b.at(row, col));
#pragma unroll
    for (int i = 0; i < decltype(lanes)::value; ++i) v[i] += other[i];
    store(y.at(row, col), v);
  });
}

}  // namespace

void fill(Stream& stream, const Tensor& tensor, float value) {
  const Tensor y = tensor.contiguous() ? as_one_row(tensor) : tensor;
  const auto fill_with = [&](auto element, auto lanes) {
    using T = decltype(element);
    constexpr int n = decltype(lanes)::value;
    const auto [grid, block] = grid_over(y.rows, y.cols, n);
    launch(stream, fill_kernel<n, T>, grid, block, RowsOf<T>(y), y.rows, y.cols, value);
  };
  if (tensor.dtype == DType::fp64) return fill_with(double(), Lanes<1>());
  with_lanes(y.dtype, fill_with, y);
}

void copy(Stream& stream, const Tensor& y, const Tensor& x) {
  check_same_shape(y, x);
  if (y.rows > 1 && all_contiguous({&y, &x})) return copy(stream, as_one_row(y), as_one_row(x));
  if (y.dtype == DType::fp64 && x.dtype == DType::fp64) {
    const auto [grid, block] = grid_over(y.rows, y.cols, 1);
    launch(stream, copy_doubles_kernel, grid, block, RowsOf<double>(y), RowsOf<const double>(x), y.rows,
           y.cols);
    return;
  }
  const auto copy_from = [&](auto from) {
    using X = decltype(from);
    const auto copy_to = [&](auto to, auto lanes) {
      using Y = decltype(to);
      constexpr int n = decltype(lanes)::value;
      const auto [grid, block] = grid_over(y.rows, y.cols, n);
      launch(stream, copy_kernel<n, Y, X>, grid, block, RowsOf<Y>(y), RowsOf<const X>(x), y.rows, y.cols);
    };
    with_lanes(y.dtype, copy_to, y, x);
  };
  with_element(x.dtype, copy_from);
}

void add(Stream& stream, const Tensor& y, const Tensor& a, const Tensor& b) {
  check_same_shape(y, a);
  check_same_shape(y, b);
  check_same_dtype(y, a);
  if (y.rows > 1 && all_contiguous({&y, &a, &b}))
    return add(stream, as_one_row(y), as_one_row(a), as_one_row(b));
  const auto add_of = [&](auto other) {
    using B = decltype(other);
    const auto add_to = [&](auto element, auto lanes) {
      using T = decltype(element);
      constexpr int n = decltype(lanes)::value;
      const auto [grid, block] = grid_over(y.rows, y.cols, n);
      launch(stream, add_kernel<n, T, B>, grid, block, RowsOf<T>(y), RowsOf<const T>(a), RowsOf<const B>(b),
             y.rows, y.cols);
    };
    with_lanes(y.dtype, add_to, y, a, b);
  };
  with_element(b.dtype, add_of);
}

}  // namespace red::ops
