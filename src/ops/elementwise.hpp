// Small passes over memory. Tensors of one call have one shape; any row strides unless said otherwise.
// Arithmetic is fp32, rounded where the result is stored as bf16.
#pragma once

#include "device/stream.hpp"
#include "device/tensor.hpp"

namespace red::ops {

/// y = value; fp32, bf16 or fp64.
void fill(Stream& stream, const Tensor& y, float value);
/// y = x, each fp32 or bf16: a conversion where they differ; or both fp64.
void copy(Stream& stream, const Tensor& y, const Tensor& x);
/// y = a + b; y may be a or b. y and a are both fp32 or both bf16; b is either, whatever they are.
void add(Stream& stream, const Tensor& y, const Tensor& a, const Tensor& b);

}  // namespace red::ops
