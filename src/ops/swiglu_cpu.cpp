// SwiGLU on the CPU: one pass over memory each way. Shapes: see swiglu.hpp.
#include "ops/row_blocks.hpp"
#include "ops/rows.hpp"
#include "ops/swiglu.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/swiglu_cpu.cpp"
#include <hwy/foreach_target.h>  // compiles this file again for each target

#include "ops/exp-inl.hpp"
#include "ops/row_loops-inl.hpp"

#ifndef RED_OPS_SWIGLU_CPU_ARGS
#define RED_OPS_SWIGLU_CPU_ARGS
namespace red::ops {
namespace {

struct SwigluArgs {
  DType dtype;
  int64_t width;         // f
  Rows gate_up, hidden;  // (n, 2 f), (n, f); in the backward pass hidden is d_hidden
  Rows d_gate_up = {};   // (n, 2 f)
};

}  // namespace
}  // namespace red::ops
#endif  // RED_OPS_SWIGLU_CPU_ARGS

HWY_BEFORE_NAMESPACE();
namespace red::ops {
namespace HWY_NAMESPACE {
namespace {

struct Sigmoid {
  FloatVec plus, minus;  // sigmoid(x), sigmoid(-x)
};

// 1 / (1 + exp(-x)) by exp(-|x|), which cannot overflow and keeps the relative accuracy of small results.
HWY_ATTR Sigmoid sigmoid(FloatVec x) {
  const FloatTag d;
  const FloatVec e = exp_of(hn::Neg(hn::Abs(x)));
  const FloatVec large = hn::Div(hn::Set(d, 1.0F), hn::Add(hn::Set(d, 1.0F), e));
  const FloatVec small = hn::Mul(e, large);
  const auto negative = hn::Lt(x, hn::Zero(d));
  return {hn::IfThenElse(negative, small, large), hn::IfThenElse(negative, large, small)};
}

template <class T>
HWY_ATTR void swiglu_row(T* hidden, const T* gate, const T* up, int64_t width) {
  const FloatTag d;
  for_each_vector(width, [&](auto access, int64_t i) HWY_ATTR {
    const auto g = access.load(d, gate + i);
    access.store(hn::Mul(hn::Mul(g, sigmoid(g).plus), access.load(d, up + i)), d, hidden + i);
  });
}

// silu'(g) = s (1 + g (1 - s)) with s = sigmoid(g).
template <class T>
HWY_ATTR void swiglu_backward_row(T* d_gate, T* d_up, const T* d_hidden, const T* gate, const T* up,
                                  int64_t width) {
  const FloatTag d;
  for_each_vector(width, [&](auto access, int64_t i) HWY_ATTR {
    const auto g = access.load(d, gate + i);
    const auto u = access.load(d, up + i);
    const auto dh = access.load(d, d_hidden + i);
    const auto s = sigmoid(g);
    const auto slope = hn::Mul(s.plus, hn::MulAdd(g, s.minus, hn::Set(d, 1.0F)));
    access.store(hn::Mul(hn::Mul(dh, u), slope), d, d_gate + i);
    access.store(hn::Mul(dh, hn::Mul(g, s.plus)), d, d_up + i);
  });
}

void swiglu_rows(const SwigluArgs& a, int64_t begin, int64_t end) {
  with_element(a.dtype, [&](auto e) HWY_ATTR {
    using T = decltype(e);
    for (int64_t row = begin; row < end; ++row) {
      const T* gate = a.gate_up.at<T>(row);
      swiglu_row(a.hidden.at<T>(row), gate, gate + a.width, a.width);
    }
  });
}

void swiglu_backward_rows(const SwigluArgs& a, int64_t begin, int64_t end) {
  with_element(a.dtype, [&](auto e) HWY_ATTR {
    using T = decltype(e);
    for (int64_t row = begin; row < end; ++row) {
      const T* gate = a.gate_up.at<T>(row);
      T* d_gate = a.d_gate_up.at<T>(row);
      swiglu_backward_row(d_gate, d_gate + a.width, a.hidden.at<T>(row), gate, gate + a.width, a.width);
    }
  });
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace red::ops
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace red::ops {
namespace {

HWY_EXPORT(swiglu_rows);
HWY_EXPORT(swiglu_backward_rows);

void check_shapes(const Tensor& hidden, const Tensor& gate_up) {
  RED_CHECK(gate_up.rows == hidden.rows && gate_up.cols == 2 * hidden.cols,
            "gate_up ({}, {}) hidden ({}, {})", gate_up.rows, gate_up.cols, hidden.rows, hidden.cols);
}

}  // namespace

void swiglu(Stream& stream, const Tensor& hidden, const Tensor& gate_up) {
  check_shapes(hidden, gate_up);
  check_same_dtype(hidden, gate_up);
  const SwigluArgs args{hidden.dtype, hidden.cols, Rows(gate_up), Rows(hidden)};
  for_row_blocks(stream, hidden.rows, 3 * hidden.cols, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(swiglu_rows)(args, begin, end);
  });
}

void swiglu_backward(Stream& stream, const Tensor& d_gate_up, const Tensor& d_hidden, const Tensor& gate_up) {
  check_shapes(d_hidden, gate_up);
  check_shapes(d_hidden, d_gate_up);
  check_same_dtype(d_hidden, d_gate_up, gate_up);
  const SwigluArgs args{d_hidden.dtype, d_hidden.cols, Rows(gate_up), Rows(d_hidden), Rows(d_gate_up)};
  for_row_blocks(stream, d_hidden.rows, 5 * d_hidden.cols, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(swiglu_backward_rows)(args, begin, end);
  });
}

}  // namespace red::ops
#endif  // HWY_ONCE
