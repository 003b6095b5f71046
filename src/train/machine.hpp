// What this machine gives a rank: the library of matrix products, memory used, and the arithmetic rate that a
// step is measured against.
#pragma once

#include <functional>

#include "checkpoint/checkpoint.hpp"
#include "device/stream.hpp"
#include "parallel/communicator.hpp"

namespace red::train {

/// Largest resident memory of this process so far, MiB.
double peak_rss_mib();

/// Where each rank has chosen its matrix library by speed: takes the one that most of them chose among those
/// that work on all, so that the bits of a result do not depend on which rank computes it. Collective.
void agree_on_gemm(parallel::Communicator& world, Stream& stream);

/// Under which name a checkpoint keeps the library that its run multiplied with.
inline constexpr const char* kGemmKey = "gemm";

/// A run that goes on from a checkpoint keeps that library where it works on all ranks, so that a restart
/// does not change the bits of what follows; otherwise a warning. Without one, or with another backend's, the
/// library stays what it is. Collective.
void keep_gemm(const checkpoint::Metadata& metadata, parallel::Communicator& world, Stream& stream);

/// GFLOP/s of a large matrix product of this dtype on the stream's threads: the best within 0.15 s. Ranks of
/// one machine must measure at the same time, as they will compute.
double measured_peak_gflops(Stream& stream, DType dtype);

/// GFLOP/s of products (n, n) (n, n) one after another, the best of three stretches of a third of `seconds`:
/// what a busy core or a hot one brings down, and a single pause does not. `while_busy`, if any, is called
/// at the end, with products under way on a GPU.
double sustained_gflops(Stream& stream, DType dtype, int64_t n, double seconds,
                        const std::function<void()>& while_busy);

}  // namespace red::train
