// Device memory and pinned host memory. cudaMalloc aligns to 256 bytes, cudaMallocHost to pages.
#include <cstring>

#include "base/error.hpp"
#include "device/buffer.hpp"
#include "device/cuda_device.hpp"
#include "device/cuda_stream.hpp"

namespace red {
namespace {

double mib(std::size_t num_bytes) {
  return static_cast<double>(num_bytes) / (1 << 20);
}

[[noreturn]] void out_of_memory(std::size_t num_bytes) {
  const detail::GpuMemory memory = detail::memory_of_gpu();
  throw IoError(
      "cannot allocate {:.1f} MiB of GPU memory: {:.1f} of {:.1f} MiB are free; use a smaller model or "
      "micro-batch, or more ranks",
      mib(num_bytes), mib(memory.free), mib(memory.total));
}

/// Whether there was memory; throws for every other failure.
bool got_memory(cudaError_t error, const char* call) {
  if (error == cudaErrorMemoryAllocation) {
    cudaGetLastError();  // told here, and not once more by a later call
    return false;
  }
  if (error != cudaSuccess) detail::cuda_failed(error, call, __FILE__, __LINE__);
  return true;
}

}  // namespace

std::byte* DeviceSpace::allocate(std::size_t num_bytes) {
  detail::require_gpu();
  void* address = nullptr;
  if (!got_memory(cudaMalloc(&address, num_bytes), "cudaMalloc")) out_of_memory(num_bytes);
  // Zeroed when this returns, for whichever stream comes first.
  const detail::CudaStream stream;
  RED_CUDA_CHECK(cudaMemsetAsync(address, 0, num_bytes, stream.get()));
  stream.synchronize();
  return static_cast<std::byte*>(address);
}

void DeviceSpace::release(std::byte* data, std::size_t /*num_bytes*/) noexcept {
  if (!detail::leaves_by_exception()) RED_CUDA_LOG(cudaFree(data));
}

std::byte* HostSpace::allocate(std::size_t num_bytes) {
  detail::require_gpu();
  void* address = nullptr;
  if (!got_memory(cudaMallocHost(&address, num_bytes), "cudaMallocHost")) {
    throw IoError(
        "cannot allocate {:.1f} MiB of pinned host memory; `ulimit -l` and the node's free memory limit it",
        mib(num_bytes));
  }
  std::memset(address, 0, num_bytes);
  return static_cast<std::byte*>(address);
}

void HostSpace::release(std::byte* data, std::size_t /*num_bytes*/) noexcept {
  if (!detail::leaves_by_exception()) RED_CUDA_LOG(cudaFreeHost(data));
}

}  // namespace red
