// In the place of src/device/gpu_launch.cuh, the comments there hold here too: a launch puts a run of the
// grid into the stream's queue, where the fake runtime leaves it as long as CUDA might.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <functional>
#include <tuple>
#include <utility>

#include "device/cuda_check.hpp"
#include "shim/launch.hpp"
#include "shim/thread.hpp"

#define GPU_DYN_SMEM(T, name) T* name = reinterpret_cast<T*>(::cuda_on_cpu::dynamic_shared_memory)

namespace gpu {

template <class... Parameters, class... Args>
void launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, std::size_t shared_bytes,
            cudaStream_t stream, Args&&... args) {
  const auto* function = reinterpret_cast<const void*>(kernel);
  if (shared_bytes > red::detail::kFreeSharedBytes) {
    RED_CUDA_CHECK(cudaFuncSetAttribute(function, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                        static_cast<int>(shared_bytes)));
  }
  // A kernel gets copies of its arguments, made at the launch.
  std::tuple<std::decay_t<Parameters>...> copies(std::forward<Args>(args)...);
  cuda_on_cpu::launch({function, grid, block, shared_bytes}, stream, [=] { std::apply(kernel, copies); });
  RED_CUDA_CHECK(cudaGetLastError());
}

}  // namespace gpu
