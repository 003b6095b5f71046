// cuDNN's attention on a GPU, beside our own kernels (docs/cuda.md): for ops/attention, and for benchmarks
// that ask whose work they timed. It takes packed sequences of bf16 whose lengths the host knows, causal or
// not; the rest is our kernels'.
#pragma once

#include <string>

#include "ops/attention.hpp"

namespace red::ops {

/// Of cuDNN, such as "9.13.0"; empty in a program without it.
std::string attention_library_version();

/// As attention_forward. False: the library has nothing for this one, and nothing was done.
bool attention_forward_by_library(Stream& stream, const Tensor& o, const Tensor& lse, const Tensor& q,
                                  const Tensor& keys, const Tensor& values, const AttentionLayout& layout,
                                  const AttentionMask& mask);

/// As attention_backward.
bool attention_backward_by_library(Stream& stream, const Tensor& dq, const Tensor& dk, const Tensor& dv,
                                   const Tensor& d_o, const AttentionOutput& output, const Tensor& q,
                                   const Tensor& keys, const Tensor& values, const Tensor& lse,
                                   const AttentionLayout& layout, const AttentionMask& mask);

/// Passes that the library has done in this process.
int64_t attention_library_passes();

/// Why it left the last attention that it was asked for to our kernels: what it does not take, or its own
/// message and status. Empty where it did it, and in a program without it.
std::string attention_library_refusal();

}  // namespace red::ops
