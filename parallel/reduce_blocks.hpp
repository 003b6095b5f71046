// The arithmetic of all_reduce and reduce_scatter on host memory.
#pragma once

#include <span>

#include "parallel/communicator.hpp"

namespace red::parallel {

/// out[i] = op over x[0][i], x[1][i], ..., from left to right, for count elements of fp32, fp64, int32 or
/// bf16; bf16 is summed in fp32 and rounded once. x: a block of each of two ranks or more; out may be any of
/// them. max and min give NaN when one side is NaN.
void reduce_blocks(DType dtype, ReduceOp op, std::byte* out, std::span<const std::byte* const> x,
                   int64_t count);

}  // namespace red::parallel
