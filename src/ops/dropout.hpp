// Dropout: y = x / (1 - rate) where an element is kept, 0 elsewhere. Who is kept is a pure function of (key,
// row key, column), so that it depends on no layout, and the backward pass makes it again instead of keeping
// it. Shapes: n tokens.
#pragma once

#include "base/philox.hpp"
#include "device/stream.hpp"
#include "device/tensor.hpp"

namespace red::ops {

struct Dropout {
  float rate = 0.0F;  ///< in [0, 1); 0: nothing is dropped
  uint64_t key = 0;   ///< of the place in the model
};

/// Of each 64 columns, 16 Philox blocks give the four words of 16 columns each: vectors of any length make
/// them.
constexpr bool is_kept(const Dropout& dropout, uint64_t row_key, uint64_t column) {
  const uint64_t block = column / 64 * 16 + column % 16;
  const uint32_t word = philox(dropout.key, row_key, block)[column % 64 / 16];
  return word >> 1 >= static_cast<uint32_t>(dropout.rate * 0x1.0p31F);
}

/// x, y (n, c) fp32 or bf16, the same; y may be x. row_keys (n) in device memory. `first_column`: of column
/// 0, in the whole matrix of which x is a part.
void dropout(Stream& stream, const Tensor& y, const Tensor& x, const uint64_t* row_keys, int64_t first_column,
             const Dropout& dropout);

}  // namespace red::ops
