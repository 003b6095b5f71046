// What this machine gives a rank: cores, memory used, and the arithmetic rate that a step is measured
// against.
#pragma once

#include "device/stream.hpp"
#include "parallel/communicator.hpp"

namespace red::train {

/// Threads for this rank: the cores it is bound to, shared fairly among `ranks_on_host` ranks when they are
/// bound to the same ones; at least 1.
int default_threads(int ranks_on_host);

/// Largest resident memory of this process so far, MiB.
double peak_rss_mib();

/// Where each rank has chosen its matrix library by speed: takes the one that most of them chose among those
/// that work on all, so that the bits of a result do not depend on which rank computes it. Collective.
void agree_on_gemm(parallel::Communicator& world, Stream& stream);

/// GFLOP/s of a large matrix product of this dtype on the stream's threads: the best within 0.15 s. Ranks of
/// one machine must measure at the same time, as they will compute.
double measured_peak_gflops(Stream& stream, DType dtype);

}  // namespace red::train
