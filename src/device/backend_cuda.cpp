#include "device/backend.hpp"
#include "device/cuda_device.hpp"

namespace red {

void require_backend(int) {
  detail::require_gpu();
}

std::string_view backend_name() {
  return "cuda";
}

std::string device_description() {
  detail::require_gpu();
  return detail::gpu_description();
}

std::optional<GpuFacts> gpu_facts() {
  detail::require_gpu();
  return detail::facts_of_gpu();
}

std::optional<std::size_t> free_gpu_memory() {
  detail::require_gpu();
  return detail::memory_of_gpu().free;
}

std::map<std::string, std::string> backend_versions() {
  detail::require_gpu();
  return detail::cuda_versions();
}

}  // namespace red
