// Embedding lookup and its gradient. Shapes: n tokens, V vocabulary, d width; ids (n) in device memory, each
// in [0, V).
#pragma once

#include <cstdint>

#include "device/stream.hpp"
#include "device/tensor.hpp"

namespace red::ops {

/// x (n, d) = rows ids of table (V, d).
void embedding_gather(Stream& stream, const Tensor& x, const Tensor& table, const int32_t* ids);

/// d_table (V, d): row ids[i] += dx row i, in the order of i whatever the number of threads.
void embedding_scatter_add(Stream& stream, const Tensor& d_table, const Tensor& dx, const int32_t* ids);

}  // namespace red::ops
