// Embedding lookup and its gradient. The table may be divided over ranks: one of V own rows, of which the
// first is token `first_row`, leaves tokens of other ranks alone. Shapes: n tokens, d width; ids (n) in
// device memory.
#pragma once

#include <cstdint>

#include "device/stream.hpp"
#include "device/tensor.hpp"

namespace red::ops {

/// x (n, d) = rows ids of table (V, d), 0 for tokens of other ranks. Both fp32 or both bf16.
void embedding_gather(Stream& stream, const Tensor& x, const Tensor& table, const int32_t* ids,
                      int64_t first_row = 0);

/// d_table (V, d), fp32: row ids[i] += dx row i, fp32 or bf16, in the order of i whatever the number of
/// threads.
void embedding_scatter_add(Stream& stream, const Tensor& d_table, const Tensor& dx, const int32_t* ids,
                           int64_t first_row = 0);

}  // namespace red::ops
