// CUDA's runtime: devices, errors, functions. Every call is declared by NVIDIA's own header; a call that is
// not here fails the link.
#include <cuda_runtime_api.h>

#include <array>
#include <cstring>
#include <map>
#include <string_view>

#include "fakes/runtime_state.hpp"
#include "runtime/device_memory.hpp"
#include "runtime/failure.hpp"
#include "runtime/options.hpp"
#include "runtime/streams.hpp"

namespace cuda_on_cpu {
namespace {

struct ErrorText {
  cudaError_t error;
  const char *name, *text;
};
constexpr std::array kErrors = {
    ErrorText{cudaSuccess, "cudaSuccess", "no error"},
    ErrorText{cudaErrorInvalidValue, "cudaErrorInvalidValue", "invalid argument"},
    ErrorText{cudaErrorMemoryAllocation, "cudaErrorMemoryAllocation", "out of memory"},
    ErrorText{cudaErrorInvalidConfiguration, "cudaErrorInvalidConfiguration",
              "invalid configuration argument"},
    ErrorText{cudaErrorInvalidMemcpyDirection, "cudaErrorInvalidMemcpyDirection",
              "invalid copy direction for memcpy"},
    ErrorText{cudaErrorInvalidDevice, "cudaErrorInvalidDevice", "invalid device ordinal"},
    ErrorText{cudaErrorNoDevice, "cudaErrorNoDevice", "no CUDA-capable device is detected"},
    ErrorText{cudaErrorNotReady, "cudaErrorNotReady", "device not ready"},
};

const ErrorText& described(cudaError_t error) {
  for (const ErrorText& known : kErrors) {
    if (known.error == error) return known;
  }
  static constexpr ErrorText unknown{cudaErrorUnknown, "cudaErrorUnknown", "unknown error"};
  return unknown;
}

cudaError_t& last_error() {
  static cudaError_t error = cudaSuccess;
  return error;
}

/// The devices share one memory: a process uses one of them.
int& current_device() {
  static int device = 0;
  return device;
}

/// Of each kernel, the dynamic shared memory that it was allowed.
std::map<const void*, int>& allowed_shared_bytes() {
  static std::map<const void*, int> allowed;
  return allowed;
}

// A block's, the least of what GPUs from compute capability 8.0 on have: 8.6, 8.9 and 12.0.
constexpr int kMostSharedBytes = 99 << 10, kFreeSharedBytes = 48 << 10;

}  // namespace

cudaError_t remember(cudaError_t error) {
  if (error != cudaSuccess) last_error() = error;
  return error;
}

bool shared_bytes_allowed(const void* kernel, std::size_t num_bytes) {
  if (num_bytes <= static_cast<std::size_t>(kFreeSharedBytes)) return true;
  const auto found = allowed_shared_bytes().find(kernel);
  return found != allowed_shared_bytes().end() && num_bytes <= static_cast<std::size_t>(found->second);
}

}  // namespace cuda_on_cpu

using cuda_on_cpu::options;
using cuda_on_cpu::remember;

cudaError_t cudaGetDeviceCount(int* count) {
  *count = options().num_devices;
  return options().num_devices > 0 ? cudaSuccess : remember(cudaErrorNoDevice);
}

cudaError_t cudaGetDevice(int* device) {
  *device = cuda_on_cpu::current_device();
  return options().num_devices > 0 ? cudaSuccess : remember(cudaErrorNoDevice);
}

cudaError_t cudaSetDevice(int device) {
  if (device < 0 || device >= options().num_devices) return remember(cudaErrorInvalidDevice);
  cuda_on_cpu::current_device() = device;
  return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  if (device < 0 || device >= options().num_devices) return remember(cudaErrorInvalidDevice);
  std::memset(properties, 0, sizeof(*properties));
  std::strncpy(properties->name, options().device_name.c_str(), sizeof(properties->name) - 1);
  properties->pciBusID = options().divided ? 0x10 : 0x10 + device;
  std::memcpy(properties->uuid.bytes, &device, sizeof(device));
  properties->major = 9;
  properties->multiProcessorCount = 4;
  properties->warpSize = 32;
  properties->maxThreadsPerBlock = 1024;
  properties->sharedMemPerBlock = cuda_on_cpu::kFreeSharedBytes;
  properties->sharedMemPerBlockOptin = cuda_on_cpu::kMostSharedBytes;
  properties->totalGlobalMem = options().memory_bytes;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  if (device < 0 || device >= options().num_devices) return remember(cudaErrorInvalidDevice);
  switch (attribute) {
    case cudaDevAttrMultiProcessorCount:
      *value = 4;
      return cudaSuccess;
    case cudaDevAttrComputeCapabilityMajor:
      *value = 9;
      return cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor:
      *value = 0;
      return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = cuda_on_cpu::kMostSharedBytes;
      return cudaSuccess;
    default:
      cuda_on_cpu::fail("cudaDeviceGetAttribute({}) is not known to the fake", static_cast<int>(attribute));
  }
}

cudaError_t cudaDriverGetVersion(int* version) {
  *version = options().num_devices > 0 ? CUDART_VERSION : 0;
  return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}

cudaError_t cudaGetLastError() {
  const cudaError_t error = cuda_on_cpu::last_error();
  cuda_on_cpu::last_error() = cudaSuccess;
  return error;
}

cudaError_t cudaPeekAtLastError() {
  return cuda_on_cpu::last_error();
}

const char* cudaGetErrorName(cudaError_t error) {
  return cuda_on_cpu::described(error).name;
}

const char* cudaGetErrorString(cudaError_t error) {
  return cuda_on_cpu::described(error).text;
}

cudaError_t cudaDeviceSynchronize() {
  cuda_on_cpu::streams().run_all();
  return cudaSuccess;
}

cudaError_t cudaFuncSetAttribute(const void* function, cudaFuncAttribute attribute, int value) {
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize)
    cuda_on_cpu::fail("cudaFuncSetAttribute({}) is not known to the fake", static_cast<int>(attribute));
  if (value < 0 || value > cuda_on_cpu::kMostSharedBytes) return remember(cudaErrorInvalidValue);
  cuda_on_cpu::allowed_shared_bytes()[function] = value;
  return cudaSuccess;
}
