#include "device/backend.hpp"
#include "device/max_cpu.hpp"

namespace red {

void require_backend(int) {}

std::string_view backend_name() {
  return "cpu";
}

std::string device_description() {
  return "CPU" + detail::max_cpu_text();
}

std::optional<GpuFacts> gpu_facts() {
  return std::nullopt;
}

std::optional<std::size_t> free_gpu_memory() {
  return std::nullopt;
}

std::map<std::string, std::string> backend_versions() {
  return {};
}

}  // namespace red
