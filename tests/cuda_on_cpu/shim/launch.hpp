// What a launch asks of the fake runtime.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <functional>

namespace cuda_on_cpu {

struct LaunchConfig {
  const void* kernel;  ///< its address
  dim3 grid, block;
  std::size_t shared_bytes;
};

/// Puts the grid into the stream's queue; body() is what one thread does. A configuration that a GPU might
/// refuse becomes CUDA's last error, as there.
void launch(const LaunchConfig& config, cudaStream_t stream, std::function<void()> body);

}  // namespace cuda_on_cpu
