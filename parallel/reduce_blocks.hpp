// The arithmetic of all_reduce and reduce_scatter on host memory.
#pragma once

#include "parallel/communicator.hpp"

namespace red::parallel {

/// out[i] = op(a[i], b[i]) for count elements of fp32, fp64 or int32; out may be a or b itself. max and min
/// give NaN when one side is NaN.
void reduce_blocks(DType dtype, ReduceOp op, void* out, const void* a, const void* b, int64_t count);

}  // namespace red::parallel
