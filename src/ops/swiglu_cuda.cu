// SwiGLU on a GPU: one pass each way over (n, f) and (n, 2 f), bound by bytes: 3 f elements a token forward,
// 5 f backward. Shapes: see swiglu.hpp.
#include "ops/cuda_rows.cuh"
#include "ops/swiglu.hpp"

namespace red::ops {
namespace {

struct Sigmoid {
  float plus, minus;  // sigmoid(x), sigmoid(-x)
};

// 1 / (1 + exp(-x)) by exp(-|x|), which cannot overflow and keeps the relative accuracy of small results.
__device__ inline Sigmoid sigmoid(float x) {
  const float e = expf(-fabsf(x));
  const float large = 1.0F / (1.0F + e), small = e * large;
  return x < 0.0F ? Sigmoid{small, large} : Sigmoid{large, small};
}

template <int kN, class T>
__global__ void swiglu_kernel(RowsOf<T> hidden, RowsOf<const T> gate_up, int64_t rows, int64_t width) {
  for_each_element<kN>(rows, width, [&](auto lanes, int64_t row, int64_t col) {
    constexpr int n = decltype(lanes)::value;
    float gate[n], up[n];
    load(gate, gate_up.at(row, col));
    load(up, gate_up.at(row, width + col));
#pragma unroll
    for (int i = 0; i < n; ++i) up[i] *= gate[i] * sigmoid(gate[i]).plus;
    store(hidden.at(row, col), up);
  });
}

// silu'(g) = s (1 + g (1 - s)) with s = sigmoid(g).
template <int kN, class T>
__global__ void swiglu_backward_kernel(RowsOf<T> d_gate_up, RowsOf<const T> d_hidden, RowsOf<const T> gate_up,
                                       int64_t rows, int64_t width) {
  for_each_element<kN>(rows, width, [&](auto lanes, int64_t row, int64_t col) {
    constexpr int n = decltype(lanes)::value;
    float gate[n], up[n], d[n];
    load(gate, gate_up.at(row, col));
    load(up, gate_up.at(row, width + col));
    load(d, d_hidden.at(row, col));
#pragma unroll
    for (int i = 0; i < n; ++i) {
      const Sigmoid s = sigmoid(gate[i]);
      const float silu = gate[i] * s.plus;
      gate[i] = d[i] * up[i] * (s.plus * (gate[i] * s.minus + 1.0F));
      up[i] = d[i] * silu;
    }
    store(d_gate_up.at(row, col), gate);
    store(d_gate_up.at(row, width + col), up);
  });
}

void check_shapes(const Tensor& hidden, const Tensor& gate_up) {
  RED_CHECK(gate_up.rows == hidden.rows && gate_up.cols == 2 * hidden.cols,
            "gate_up ({}, {}) hidden ({}, {})", gate_up.rows, gate_up.cols, hidden.rows, hidden.cols);
}

}  // namespace

void swiglu(Stream& stream, const Tensor& hidden, const Tensor& gate_up) {
  check_shapes(hidden, gate_up);
  check_same_dtype(hidden, gate_up);
  const int64_t rows = hidden.rows, width = hidden.cols;
  const Tensor up = gate_up.col_range(width, width);
  const auto run = [&](auto element, auto lanes) {
    using T = decltype(element);
    constexpr int n = decltype(lanes)::value;
    const auto [grid, block] = grid_over(rows, width, n);
    launch(stream, swiglu_kernel<n, T>, grid, block, RowsOf<T>(hidden), RowsOf<const T>(gate_up), rows,
           width);
  };
  with_lanes(hidden.dtype, run, hidden, gate_up, up);
}

void swiglu_backward(Stream& stream, const Tensor& d_gate_up, const Tensor& d_hidden, const Tensor& gate_up) {
  check_shapes(d_hidden, gate_up);
  check_shapes(d_hidden, d_gate_up);
  check_same_dtype(d_hidden, d_gate_up, gate_up);
  const int64_t rows = d_hidden.rows, width = d_hidden.cols;
  const Tensor up = gate_up.col_range(width, width), d_up = d_gate_up.col_range(width, width);
  const auto run = [&](auto element, auto lanes) {
    using T = decltype(element);
    constexpr int n = decltype(lanes)::value;
    const auto [grid, block] = grid_over(rows, width, n);
    launch(stream, swiglu_backward_kernel<n, T>, grid, block, RowsOf<T>(d_gate_up), RowsOf<const T>(d_hidden),
           RowsOf<const T>(gate_up), rows, width);
  };
  with_lanes(d_hidden.dtype, run, d_gate_up, d_hidden, gate_up, up, d_up);
}

}  // namespace red::ops
