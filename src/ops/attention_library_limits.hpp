// Private to attention on a GPU: what cuDNN's attention is not asked for at all.
#pragma once

#include <span>
#include <string>

#include "ops/attention.hpp"

namespace red::ops {

/// Why our kernels do it, as "keys and values are a cache's"; empty when the library is asked. matrices: q
/// first, then the others of a pass, of which some may be null. cuDNN 9: bf16, heads of a multiple of 8
/// columns up to 128, rows that begin at multiples of 16 bytes, 32-bit offsets, no mask but the causal one.
std::string not_taken_by_library(std::span<const Tensor* const> matrices, const AttentionLayout& layout,
                                 const AttentionMask& mask);

}  // namespace red::ops
