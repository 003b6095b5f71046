// Kernels with a bug each, to see it caught, and without it, to see nothing caught.
#pragma once

#include <cuda_runtime_api.h>

#include <span>

namespace cuda_on_cpu {

inline constexpr int kPlantedThreads = 64;

struct PlantedBug {
  const char* name;
  /// Launches it on the stream; out: kPlantedThreads floats of device memory, zeroed.
  void (*launch)(bool bug, cudaStream_t stream, float* out);
  /// Of thread i, without the bug; NaN: whatever it is.
  float (*expected)(int thread);
};

std::span<const PlantedBug> planted_kernels();

}  // namespace cuda_on_cpu
