#include "device/cuda_device.hpp"

#include <unistd.h>

#include <array>
#include <charconv>
#include <cstdlib>
#include <cstring>

#include "base/error.hpp"
#include "device/cuda_check.hpp"
#include "device/gpu_sensors.hpp"

namespace red::detail {
namespace {

constexpr int kLeastMajor = 8;  // what kernels are compiled for begins with sm_80

// What CUDA reads when it starts, and the user has not set. A kernel that is loaded when it is first launched
// makes the device wait for all others, and NCCL's wait for other ranks: two ranks that load one would wait
// for each other. So would operations of two streams that share one of the device's queues, of which CUDA
// takes 8 unless it is told otherwise, and 32 at most. Before main, which starts threads and MPI, whose
// plug-ins may start CUDA.
[[maybe_unused]] const bool kEnvironmentIsSet =
    setenv("CUDA_MODULE_LOADING", "EAGER", 0) == 0 &&     // NOLINT(concurrency-mt-unsafe): no thread
    setenv("CUDA_DEVICE_MAX_CONNECTIONS", "32", 0) == 0;  // NOLINT(concurrency-mt-unsafe): was started

cudaDeviceProp properties() {
  int device = 0;
  RED_CUDA_CHECK(cudaGetDevice(&device));
  cudaDeviceProp result{};
  RED_CUDA_CHECK(cudaGetDeviceProperties(&result, device));
  return result;
}

std::string version_text(int version) {
  return fmt::format("{}.{}", version / 1000, version % 1000 / 10);
}

/// As the launcher announces it: Open MPI's mpirun; Hydra, which is MPICH's and Intel MPI's; srun. 0 without
/// one. In this order, for under another launcher SLURM_LOCALID is that of the job's script on every rank.
int rank_on_host() {
  for (const char* name :
       {"OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "PMI_LOCAL_RANK", "SLURM_LOCALID"}) {
    const char* text = std::getenv(name);
    int rank = 0;
    if (text != nullptr && std::from_chars(text, text + std::strlen(text), rank).ec == std::errc() &&
        rank >= 0)
      return rank;
  }
  return 0;
}

std::string address_of(const cudaDeviceProp& gpu) {
  return fmt::format("{:04x}:{:02x}:{:02x}.0", gpu.pciDomainID, gpu.pciBusID, gpu.pciDeviceID);
}

/// Of this process's GPU, once it is known: CUDA tells nothing more after some failures.
std::string& known_address() {
  static std::string address;
  return address;
}

/// What stands in the way; empty when nothing does.
std::string obstacle() {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  cudaGetLastError();  // it is told here, and not once more by a later call
  if (error == cudaErrorInsufficientDriver) {
    int driver = 0;
    RED_CUDA_CHECK(cudaDriverGetVersion(&driver));
    return driver == 0 ? "there is no NVIDIA driver"
                       : fmt::format("the NVIDIA driver is for CUDA {}, and this program needs {}",
                                     version_text(driver), version_text(CUDART_VERSION));
  }
  if (error != cudaSuccess) return cudaGetErrorString(error);
  if (count == 0) return "no GPU is visible (CUDA_VISIBLE_DEVICES may hide it)";
  RED_CUDA_CHECK(cudaSetDevice(rank_on_host() % count));
  const cudaDeviceProp gpu = properties();
  known_address() = address_of(gpu);
  if (gpu.major < kLeastMajor)
    return fmt::format("{} is sm_{}{}, and this program needs sm_{}0 or newer", gpu.name, gpu.major,
                       gpu.minor, kLeastMajor);
  return "";
}

}  // namespace

void require_gpu() {
  static const std::string problem = obstacle();
  if (problem.empty()) return;
  throw ConfigError(
      "redllm-cuda cannot use a GPU here: {}. Run it where nvidia-smi shows one, or use redllm, the same "
      "program for CPUs",
      problem);
}

std::string gpu_name() {
  const cudaDeviceProp gpu = properties();
  return fmt::format("{}, sm_{}{}", gpu.name, gpu.major, gpu.minor);
}

std::string gpu_description() {
  int device = 0, count = 0;
  RED_CUDA_CHECK(cudaGetDevice(&device));
  RED_CUDA_CHECK(cudaGetDeviceCount(&count));
  return fmt::format("GPU {} of {}, {}", device, count, gpu_name());
}

std::array<uint8_t, 16> gpu_identity() {
  require_gpu();
  const cudaDeviceProp gpu = properties();
  std::array<uint8_t, 16> identity{};
  static_assert(sizeof(gpu.uuid.bytes) == sizeof(identity));
  std::memcpy(identity.data(), gpu.uuid.bytes, sizeof(identity));
  return identity;
}

GpuFacts facts_of_gpu() {
  const cudaDeviceProp gpu = properties();
  GpuFacts facts;
  facts.name = gpu.name;
  RED_CUDA_CHECK(cudaGetDevice(&facts.index));
  facts.pci_address = address_of(gpu);
  facts.identity = gpu_identity();
  return facts;
}

std::string loss_of_gpu() {
  if (known_address().empty()) return "";
  const auto state = GpuSensors(known_address()).read();
  if (!state || state->lost.empty()) return "";
  std::array<char, 256> host{};
  const bool known = gethostname(host.data(), host.size() - 1) == 0;
  return loss_text(fmt::format("the GPU at {} on {}", known_address(), known ? host.data() : "this machine"),
                   state->lost);
}

GpuMemory memory_of_gpu() {
  GpuMemory memory;
  RED_CUDA_CHECK(cudaMemGetInfo(&memory.free, &memory.total));
  return memory;
}

std::map<std::string, std::string> cuda_versions() {
  int runtime = 0, driver = 0;
  RED_CUDA_CHECK(cudaRuntimeGetVersion(&runtime));
  RED_CUDA_CHECK(cudaDriverGetVersion(&driver));
  return {{"CUDA's runtime", version_text(runtime)}, {"the driver's CUDA", version_text(driver)}};
}

}  // namespace red::detail
