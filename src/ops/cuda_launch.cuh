// Private to the CUDA ops: how kernels are launched. Grids are limited: a kernel goes over what is left in
// strides of the grid, so that no size is too large for it, and nothing is launched for no work.
#pragma once

#include <algorithm>
#include <cstdint>

#include "device/gpu_launch.cuh"
#include "device/stream.hpp"

namespace red::ops {

/// Blocks of a pass over memory: several for each of a GPU's multiprocessors. A constant, since sums are
/// formed block by block and may depend on shapes alone.
inline constexpr int64_t kMostBlocks = 4096;
inline constexpr int kWarp = 32;

/// The smallest number of `each` that hold `all`.
constexpr int64_t pieces(int64_t all, int64_t each) {
  return (all + each - 1) / each;
}

/// Blocks for so many tasks.
inline unsigned blocks_for(int64_t tasks, int64_t most = kMostBlocks) {
  return static_cast<unsigned>(std::min(tasks, most));
}

/// Threads of a block that shares `items`: whole warps, at most `most`.
inline unsigned threads_for(int64_t items, int64_t most = 256) {
  return static_cast<unsigned>(std::clamp<int64_t>(pieces(items, kWarp) * kWarp, kWarp, most));
}

/// With so many bytes of dynamic shared memory.
template <class... Parameters, class... Args>
void launch_with_shared(Stream& stream, void (*kernel)(Parameters...), dim3 grid, dim3 block,
                        std::size_t bytes, Args&&... args) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
  gpu::launch(kernel, grid, block, bytes, stream.handle(), std::forward<Args>(args)...);
}

template <class... Parameters, class... Args>
void launch(Stream& stream, void (*kernel)(Parameters...), dim3 grid, dim3 block, Args&&... args) {
  launch_with_shared(stream, kernel, grid, block, 0, std::forward<Args>(args)...);
}

}  // namespace red::ops
