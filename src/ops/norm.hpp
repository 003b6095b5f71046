// RMSNorm with a learned gain over the model width (model-and-recipe "Blocks"): y = x rsqrt(mean(x^2) + eps)
// g. Shapes: n tokens, d width; x, y, dx, dy (n, d), all fp32 or all bf16; gain, dgain (d, 1) and inv_rms (n,
// 1) fp32. Arithmetic is fp32.
#pragma once

#include "device/stream.hpp"
#include "device/tensor.hpp"

namespace red::ops {

/// y = norm(x) gain; inv_rms = rsqrt(mean(x^2) + epsilon) is kept for the backward passes.
void rms_norm(Stream& stream, const Tensor& y, const Tensor& inv_rms, const Tensor& x, const Tensor& gain,
              float epsilon);

/// x_out = x + branch (a residual connection), then y = norm(x_out) gain, of x_out as it is stored. x_out may
/// be x.
void add_rms_norm(Stream& stream, const Tensor& x_out, const Tensor& y, const Tensor& inv_rms,
                  const Tensor& x, const Tensor& branch, const Tensor& gain, float epsilon);

/// y again from x and the kept inv_rms (cheaper than keeping y).
void rms_norm_recompute(Stream& stream, const Tensor& y, const Tensor& x, const Tensor& inv_rms,
                        const Tensor& gain);

/// dx = residual + d(norm)/dx^T dy. `residual` is the gradient that flows past the norm; empty: none. dx may
/// be residual or dy.
void rms_norm_backward_input(Stream& stream, const Tensor& dx, const Tensor& residual, const Tensor& dy,
                             const Tensor& x, const Tensor& inv_rms, const Tensor& gain);

/// dgain += sum over tokens of dy x inv_rms. The order of the sum depends on n alone, not on the threads.
void rms_norm_backward_gain(Stream& stream, const Tensor& dgain, const Tensor& dy, const Tensor& x,
                            const Tensor& inv_rms);

/// Bytes that these ops take at most from a stream's scratch memory for up to n tokens.
std::size_t rms_norm_scratch_bytes(int64_t n, int64_t d);

}  // namespace red::ops
