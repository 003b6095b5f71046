// Sums over whole tensors, as device scalars (fp64, (1, 1)). The order of a sum depends on the shape alone,
// never on the number of threads.
#pragma once

#include "device/stream.hpp"
#include "device/tensor.hpp"

namespace red::ops {

/// sum += sum over x of x^2, fp64. NaN and Inf come through: a sum that is not finite is how they are found.
void sum_of_squares(Stream& stream, const Tensor& sum, const Tensor& x);

/// Bytes that it takes from a stream's scratch memory for so many elements.
std::size_t sum_of_squares_scratch_bytes(int64_t size);

}  // namespace red::ops
