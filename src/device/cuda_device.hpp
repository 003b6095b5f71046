// Private to the CUDA backend: the GPU of this process.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>

#include "device/backend.hpp"

namespace red::detail {

/// Throws ConfigError when there is no GPU that this program can use: what is missing, and which program to
/// use instead. Whatever takes memory or a stream calls it first; it looks once, and makes the calling thread
/// use the GPU of this process: processes of one host take its GPUs in turn, by their rank on it.
void require_gpu();

/// "NVIDIA H100 80GB HBM3, sm_90": for logs, and to tell caches of one kind of GPU from those of another.
std::string gpu_name();

/// The same behind its number among those that this process sees.
std::string gpu_description();

/// What no other GPU has, on this host or another; of a GPU that is divided (MIG) each instance has its own.
/// Throws ConfigError as require_gpu does.
std::array<uint8_t, 16> gpu_identity();

GpuFacts facts_of_gpu();

/// "the GPU at 0000:19:00.0 on n12 is lost, ...", where NVML says so of this process's GPU; otherwise empty.
/// Calls nothing of CUDA.
std::string loss_of_gpu();

struct GpuMemory {
  std::size_t free = 0, total = 0;  ///< bytes
};
GpuMemory memory_of_gpu();

/// As backend_versions().
std::map<std::string, std::string> cuda_versions();

}  // namespace red::detail
