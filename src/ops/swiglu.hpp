// SwiGLU: hidden = silu(gate) * up. Shapes: n tokens, f FFN width; gate_up, d_gate_up (n, 2 f) = [gate | up];
// hidden, d_hidden (n, f); all fp32 or all bf16.
#pragma once

#include "device/stream.hpp"
#include "device/tensor.hpp"

namespace red::ops {

void swiglu(Stream& stream, const Tensor& hidden, const Tensor& gate_up);

/// d_gate_up from d_hidden. d_gate_up may be gate_up.
void swiglu_backward(Stream& stream, const Tensor& d_gate_up, const Tensor& d_hidden, const Tensor& gate_up);

}  // namespace red::ops
