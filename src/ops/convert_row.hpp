// Private to ops: a row of n elements between bf16 and fp32.
#pragma once

#include <cstdint>

#include "base/bf16.hpp"

namespace red::ops {

void convert_row(float* y, const bf16* x, int64_t n);
/// Rounds.
void convert_row(bf16* y, const float* x, int64_t n);

}  // namespace red::ops
