// Matrix product. Shapes: op(a) (m, k), op(b) (k, n), c (m, n); any row strides. a and b are both fp32 or
// both bf16, c is either. The sum is fp32 in any case; bf16 results are rounded once, at the end.
#pragma once

#include "device/stream.hpp"
#include "device/tensor.hpp"

namespace red::ops {

enum class Transpose : bool { no = false, yes = true };

/// c = alpha op(a) op(b) + beta c. With beta = 0, c's old contents (NaN too) do not
/// matter; with beta = 1, weight gradients add up in place. Split into tiles over the stream's threads, which
/// calls its progress hook in between. m, n or k may be 0.
void matmul(Stream& stream, const Tensor& c, const Tensor& a, Transpose transpose_a, const Tensor& b,
            Transpose transpose_b, float alpha = 1.0F, float beta = 0.0F);

/// Bytes that a product takes at most from a stream's scratch memory when any of its tensors holds `dtype`.
std::size_t matmul_scratch_bytes(int num_threads, DType dtype);

}  // namespace red::ops
