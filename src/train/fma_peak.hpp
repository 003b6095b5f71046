// What the processors of a run can do at most in fp32: fused multiply-adds in registers alone.
#pragma once

#include <optional>

#include "device/stream.hpp"
#include "parallel/communicator.hpp"

namespace red::train {

/// GFLOP/s (a multiply-add is two) of all ranks at the same time, on all their threads, with the widest
/// vectors that RED_MAX_CPU leaves: the best of some bursts of a few milliseconds. A product is nothing else,
/// and comes close to it as far as memory lets it; bf16 arithmetic of a processor can do more. Nothing on a
/// GPU. Collective; the same on every rank.
std::optional<double> fma_peak_gflops(parallel::Communicator& world, Stream& stream);

}  // namespace red::train
