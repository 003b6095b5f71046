// What is multiplied when speed is measured: numbers of both signs that differ in all their bits. On equal
// ones a GPU draws less power, and at its limit runs faster than in a step: an A100's products by 15 %, zeros
// beside normal deviates (thonking.ai/p/strangely-matrix-multiplications).
#pragma once

#include <cstdint>

#include "device/stream.hpp"
#include "device/tensor.hpp"

namespace red::ops {

enum class Numbers : bool {
  both_signs,  ///< spread evenly over (-0.2, 0.2)
  positive     ///< over [0.05, 0.25): means of squares
};

/// Elements after which they begin again: few for the host to make, and no multiple of a row's length.
constexpr int64_t kSpreadPeriod = 8 * 8191;

/// x = numbers that are a function of the key and the element; contiguous, fp32 or bf16. The host makes a
/// period of them; the device repeats what is there, twice as much each time.
void spread_numbers(Stream& stream, const Tensor& x, Numbers which, uint64_t key);

}  // namespace red::ops
