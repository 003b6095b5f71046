// Private to the CUDA backend: every call into CUDA is checked. Programs without CUDA do not include this.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <exception>
#include <string>

namespace red::detail {

/// Dynamic shared memory that a kernel may have without asking for it.
inline constexpr std::size_t kFreeSharedBytes = std::size_t{48} << 10;

/// GpuLostError, with `what` failed, where NVML says that there is no GPU any more.
void throw_if_gpu_lost(const std::string& what);

/// Throws LogicError: the call, its place, CUDA's name of the error and what it means. GpuLostError where
/// NVML says that there is no GPU any more.
[[noreturn]] void cuda_failed(cudaError_t error, const char* call, const char* file, int line);

/// The same for destructors, which must not throw: a line in the log.
void log_cuda_failure(cudaError_t error, const char* call, const char* file, int line) noexcept;

/// For destructors. What a process has on the device when an exception ends it is left to the driver: to free
/// it would wait for the device, and the device perhaps for a rank that is lost.
inline bool leaves_by_exception() noexcept {
  return std::uncaught_exceptions() != 0;
}

}  // namespace red::detail

/// RED_CUDA_CHECK(cudaStreamSynchronize(stream));
#define RED_CUDA_CHECK(call)                                            \
  do {                                                                  \
    const cudaError_t red_error = (call);                               \
    if (red_error != cudaSuccess) [[unlikely]]                          \
      ::red::detail::cuda_failed(red_error, #call, __FILE__, __LINE__); \
  } while (false)

/// In destructors.
#define RED_CUDA_LOG(call)                                                   \
  do {                                                                       \
    const cudaError_t red_error = (call);                                    \
    if (red_error != cudaSuccess) [[unlikely]]                               \
      ::red::detail::log_cuda_failure(red_error, #call, __FILE__, __LINE__); \
  } while (false)
