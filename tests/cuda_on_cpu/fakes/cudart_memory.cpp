// CUDA's runtime: memory and copies.
#include <cuda_runtime_api.h>

#include <cstring>
#include <vector>

#include "fakes/runtime_state.hpp"
#include "runtime/device_memory.hpp"
#include "runtime/failure.hpp"
#include "runtime/options.hpp"
#include "runtime/streams.hpp"

using cuda_on_cpu::device_memory;
using cuda_on_cpu::options;
using cuda_on_cpu::remember;
using cuda_on_cpu::streams;

namespace {

bool ends_on_device(cudaMemcpyKind kind) {
  return kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
}

bool begins_on_device(cudaMemcpyKind kind) {
  return kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
}

/// Whether the address is where the copy says. A range that begins in device memory must end in it.
cudaError_t check_end(const void* address, std::size_t num_bytes, bool should_be_on_device) {
  if (device_memory().contains(address) != should_be_on_device) return cudaErrorInvalidMemcpyDirection;
  if (should_be_on_device && !device_memory().contains(address, num_bytes)) return cudaErrorInvalidValue;
  return cudaSuccess;
}

}  // namespace

cudaError_t cudaMalloc(void** address, std::size_t num_bytes) {
  if (options().num_devices == 0) return remember(cudaErrorNoDevice);
  streams().nudge();
  *address = num_bytes == 0 ? nullptr : device_memory().allocate(num_bytes);
  return num_bytes == 0 || *address != nullptr ? cudaSuccess : remember(cudaErrorMemoryAllocation);
}

cudaError_t cudaFree(void* address) {
  if (address == nullptr) return cudaSuccess;
  streams().run_all();  // as the real one waits for the device
  return device_memory().free(address) ? cudaSuccess : remember(cudaErrorInvalidValue);
}

/// In stream order only the end matters here: addresses are not given out again.
cudaError_t cudaMallocAsync(void** address, std::size_t num_bytes, cudaStream_t stream) {
  if (stream == nullptr) cuda_on_cpu::fail("cudaMallocAsync on the default stream");
  return cudaMalloc(address, num_bytes);
}

cudaError_t cudaFreeAsync(void* address, cudaStream_t stream) {
  if (!device_memory().contains(address)) return remember(cudaErrorInvalidValue);
  streams().push(stream, [address] {
    if (!device_memory().free(address)) cuda_on_cpu::fail("cudaFreeAsync of memory that is freed already");
  });
  return cudaSuccess;
}

cudaError_t cudaMallocHost(void** address, std::size_t num_bytes) {
  if (options().num_devices == 0) return remember(cudaErrorNoDevice);
  *address = num_bytes == 0 ? nullptr : device_memory().allocate_pinned(num_bytes);
  return num_bytes == 0 || *address != nullptr ? cudaSuccess : remember(cudaErrorMemoryAllocation);
}

cudaError_t cudaFreeHost(void* address) {
  if (address == nullptr) return cudaSuccess;
  streams().run_all();
  return device_memory().free_pinned(address) ? cudaSuccess : remember(cudaErrorInvalidValue);
}

cudaError_t cudaMemGetInfo(std::size_t* free_bytes, std::size_t* total_bytes) {
  *total_bytes = options().memory_bytes;
  *free_bytes = options().memory_bytes - device_memory().used_bytes();
  return cudaSuccess;
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* address) {
  if (options().num_devices == 0) return remember(cudaErrorNoDevice);
  *attributes = {};
  attributes->type = cudaMemoryTypeUnregistered;
  if (device_memory().contains(address)) {
    attributes->type = cudaMemoryTypeDevice;
    attributes->devicePointer = const_cast<void*>(address);
  } else if (device_memory().is_pinned(address)) {
    attributes->type = cudaMemoryTypeHost;
    attributes->devicePointer = attributes->hostPointer = const_cast<void*>(address);
  }
  return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void* address, int value, std::size_t num_bytes, cudaStream_t stream) {
  if (num_bytes != 0 && !device_memory().contains(address, num_bytes)) return remember(cudaErrorInvalidValue);
  streams().push(stream, [=] { std::memset(address, value, num_bytes); });
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t num_bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  if (num_bytes == 0) return cudaSuccess;
  // The backend says what it means; cudaMemcpyDefault would let a mistake pass.
  if (kind == cudaMemcpyDefault || kind == cudaMemcpyHostToHost)
    return remember(cudaErrorInvalidMemcpyDirection);
  if (const cudaError_t error = check_end(to, num_bytes, ends_on_device(kind))) return remember(error);
  if (const cudaError_t error = check_end(from, num_bytes, begins_on_device(kind))) return remember(error);
  if (kind == cudaMemcpyDeviceToHost && !device_memory().is_pinned(to)) {
    // To pageable memory the real one waits as well.
    streams().wait_for(stream);
    const cuda_on_cpu::DeviceMemory::Open open;
    std::memcpy(to, from, num_bytes);
    return cudaSuccess;
  }
  if (kind == cudaMemcpyHostToDevice && !device_memory().is_pinned(from)) {
    // From pageable memory the bytes are taken at the call.
    const auto* bytes = static_cast<const std::byte*>(from);
    streams().push(stream, [to, taken = std::vector<std::byte>(bytes, bytes + num_bytes)] {
      std::memcpy(to, taken.data(), taken.size());
    });
    return cudaSuccess;
  }
  streams().push(stream, [=] { std::memmove(to, from, num_bytes); });
  return cudaSuccess;
}
