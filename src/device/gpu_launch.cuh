// The spellings of CUDA that a C++ compiler cannot read: a kernel launch and dynamic shared memory. Kernels
// are compiled by nvcc against this file, and as C++ against the file of the same name in
// tests/cuda_on_cpu/include, which runs them on the CPU: whatever is declared here is declared there.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <utility>

#include "device/cuda_check.hpp"

/// T* name: the block's dynamic shared memory, aligned to 16 bytes, contents undefined.
#define GPU_DYN_SMEM(T, name) T* name = reinterpret_cast<T*>(::gpu::dynamic_shared_memory)

namespace gpu {

extern __shared__ __align__(16) unsigned char dynamic_shared_memory[];

/// Runs kernel(args...) in stream order on grid x block threads with shared_bytes of dynamic shared memory,
/// of which more than 48 KiB must be asked for by kernel. Arguments become the kernel's parameter types.
/// Throws LogicError when CUDA refuses the launch; what goes wrong while it runs is reported by a later call.
template <class... Parameters, class... Args>
void launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, std::size_t shared_bytes,
            cudaStream_t stream, Args&&... args) {
  if (shared_bytes > red::detail::kFreeSharedBytes) {
    RED_CUDA_CHECK(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                                        cudaFuncAttributeMaxDynamicSharedMemorySize,
                                        static_cast<int>(shared_bytes)));
  }
  kernel<<<grid, block, shared_bytes, stream>>>(Parameters(std::forward<Args>(args))...);
  RED_CUDA_CHECK(cudaGetLastError());
}

}  // namespace gpu
