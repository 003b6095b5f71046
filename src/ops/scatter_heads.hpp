// Keys or values of new tokens into a cache that keeps each head's one after another (ops/attention.hpp,
// AttentionLayout). Shapes: n tokens, h heads, k head width.
#pragma once

#include <cstdint>

#include "device/stream.hpp"
#include "device/tensor.hpp"

namespace red::ops {

/// Head i of token t of x (n, h k) becomes row rows[t] + i head_rows of `cache` (any rows, k). Both fp32 or
/// both bf16; rows (n) in device memory, each place at most once. Throws LogicError for a row outside.
void scatter_heads(Stream& stream, const Tensor& cache, const Tensor& x, const int32_t* rows,
                   int64_t num_heads, int64_t head_rows);

}  // namespace red::ops
