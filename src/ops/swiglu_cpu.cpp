// SwiGLU on the CPU: one pass over memory each way. Shapes: see swiglu.hpp.
#include "ops/row_blocks.hpp"
#include "ops/swiglu.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/swiglu_cpu.cpp"
#include <hwy/foreach_target.h>  // compiles this file again for each target

#include "ops/exp-inl.hpp"
#include "ops/row_loops-inl.hpp"

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

void swiglu_row(float* hidden, const float* gate, const float* up, int64_t width) {
  const FloatTag d;
  for_each_vector(width, [&](auto access, int64_t i) HWY_ATTR {
    const auto g = access.load(d, gate + i);
    access.store(hn::Mul(hn::Mul(g, sigmoid(g).plus), access.load(d, up + i)), d, hidden + i);
  });
}

// silu'(g) = s (1 + g (1 - s)) with s = sigmoid(g).
void swiglu_backward_row(float* d_gate, float* d_up, const float* d_hidden, const float* gate,
                         const float* up, int64_t width) {
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

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace red::ops
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace red::ops {
namespace {

HWY_EXPORT(swiglu_row);
HWY_EXPORT(swiglu_backward_row);

void check_shapes(const Tensor& hidden, const Tensor& gate_up) {
  RED_CHECK(gate_up.rows == hidden.rows && gate_up.cols == 2 * hidden.cols,
            "gate_up ({}, {}) hidden ({}, {})", gate_up.rows, gate_up.cols, hidden.rows, hidden.cols);
}

}  // namespace

void swiglu(Stream& stream, const Tensor& hidden, const Tensor& gate_up) {
  check_shapes(hidden, gate_up);
  auto* out = hidden.as<float>();
  const auto* in = gate_up.as<float>();
  const int64_t width = hidden.cols;
  for_row_blocks(stream, hidden.rows, 3 * width, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const float* gate = in + row * gate_up.row_stride;
      HWY_DYNAMIC_DISPATCH(swiglu_row)(out + row * hidden.row_stride, gate, gate + width, width);
    }
  });
}

void swiglu_backward(Stream& stream, const Tensor& d_gate_up, const Tensor& d_hidden, const Tensor& gate_up) {
  check_shapes(d_hidden, gate_up);
  check_shapes(d_hidden, d_gate_up);
  auto* out = d_gate_up.as<float>();
  const auto* dh = d_hidden.as<float>();
  const auto* in = gate_up.as<float>();
  const int64_t width = d_hidden.cols;
  for_row_blocks(stream, d_hidden.rows, 5 * width, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const float* gate = in + row * gate_up.row_stride;
      float* d_gate = out + row * d_gate_up.row_stride;
      HWY_DYNAMIC_DISPATCH(swiglu_backward_row)
      (d_gate, d_gate + width, dh + row * d_hidden.row_stride, gate, gate + width, width);
    }
  });
}

}  // namespace red::ops
#endif  // HWY_ONCE
