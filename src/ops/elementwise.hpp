// Small passes over memory. Tensors of one call have one shape; any row strides unless said otherwise.
#pragma once

#include "device/stream.hpp"
#include "device/tensor.hpp"

namespace red::ops {

/// y = value; fp32 or fp64.
void fill(Stream& stream, const Tensor& y, float value);
/// y = x; both fp32 or both fp64.
void copy(Stream& stream, const Tensor& y, const Tensor& x);
/// y = a + b; y may be a or b.
void add(Stream& stream, const Tensor& y, const Tensor& a, const Tensor& b);

}  // namespace red::ops
