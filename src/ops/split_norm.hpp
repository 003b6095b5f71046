// RMSNorm without a gain over a width that several ranks hold together, each some columns of it: what a rank
// cannot know, a sum over the whole row, is reduced by the caller between two ops. Shapes: n tokens, c own
// columns; a, b, x, y, dx (n, c), all of an op fp32 or all bf16, any row stride; squares, dots, inv_rms (n,
// 1) fp32; `width` is the whole row's.
#pragma once

#include "device/stream.hpp"
#include "device/tensor.hpp"

namespace red::ops {

/// dots = sum over own columns of a b.
void row_dots(Stream& stream, const Tensor& dots, const Tensor& a, const Tensor& b);

/// x <- x inv_rms, with inv_rms = rsqrt(squares / width + epsilon), which is kept. squares: row_dots(x, x) of
/// all ranks.
void split_norm(Stream& stream, const Tensor& x, const Tensor& inv_rms, const Tensor& squares, int64_t width,
                float epsilon);

/// dx, the gradient of split_norm's result y, becomes the gradient of its argument. dots: row_dots(dx, y) of
/// all ranks.
void split_norm_backward(Stream& stream, const Tensor& dx, const Tensor& y, const Tensor& inv_rms,
                         const Tensor& dots, int64_t width);

}  // namespace red::ops
