// Device memory. cudaMalloc aligns it to 256 bytes.
#include <atomic>

#include "base/error.hpp"
#include "device/buffer.hpp"
#include "device/cuda_device.hpp"
#include "device/cuda_stream.hpp"

namespace red {
namespace {

std::atomic<std::size_t>& allocation_count() {
  static std::atomic<std::size_t> count{0};
  return count;
}

double mib(std::size_t num_bytes) {
  return static_cast<double>(num_bytes) / (1 << 20);
}

[[noreturn]] void out_of_memory(std::size_t num_bytes) {
  std::size_t free_bytes = 0, total_bytes = 0;
  RED_CUDA_CHECK(cudaMemGetInfo(&free_bytes, &total_bytes));
  throw IoError(
      "cannot allocate {:.1f} MiB of GPU memory: {:.1f} of {:.1f} MiB are free; use a smaller model or "
      "micro-batch, or more ranks",
      mib(num_bytes), mib(free_bytes), mib(total_bytes));
}

}  // namespace

Buffer::Buffer(std::size_t num_bytes, Memory memory) {
  if (num_bytes == 0 || memory == Memory::counted) {
    num_bytes_ = num_bytes;
    return;
  }
  detail::require_gpu();
  void* address = nullptr;
  const cudaError_t error = cudaMalloc(&address, num_bytes);
  if (error == cudaErrorMemoryAllocation) {
    cudaGetLastError();  // told here, and not once more by a later call
    out_of_memory(num_bytes);
  }
  if (error != cudaSuccess) detail::cuda_failed(error, "cudaMalloc", __FILE__, __LINE__);
  data_ = static_cast<std::byte*>(address);
  num_bytes_ = num_bytes;
  // Zeroed when the constructor returns, for whichever stream comes first.
  const detail::CudaStream stream;
  RED_CUDA_CHECK(cudaMemsetAsync(address, 0, num_bytes, stream.get()));
  stream.synchronize();
  ++allocation_count();
}

Buffer::~Buffer() {
  if (data_ != nullptr) RED_CUDA_LOG(cudaFree(data_));
}

std::size_t Buffer::num_allocations() {
  return allocation_count();
}

}  // namespace red
