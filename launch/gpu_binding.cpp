#include "launch/gpu_binding.hpp"

#include <cstdlib>
#include <string_view>
#include <thread>

#include "base/log.hpp"
#include "checkpoint/exchange.hpp"
#include "device/backend.hpp"
#include "device/numa.hpp"
#include "launch/preflight_report.hpp"
#include "parallel/star.hpp"

namespace red::launch {
namespace {

/// Nothing where there is no GPU to use: what is wrong is said later, when ranks can tell each other.
std::optional<GpuFacts> gpu_if_any() {
  try {
    return gpu_facts();
  } catch (const ConfigError&) {
    return std::nullopt;
  }
}

}  // namespace

void bind_near_gpu() {
  const char* wish = std::getenv("RED_BIND");
  if (wish != nullptr && std::string_view(wish) != "off")
    throw ConfigError("RED_BIND={}: off, or unset", wish);
  if (wish != nullptr) return;
  const auto gpu = gpu_if_any();
  if (!gpu) return;
  const std::vector<int> cores =
      cores_to_bind_to(own_cores(), static_cast<int>(std::thread::hardware_concurrency()),
                       numa_node_of_pci(gpu->pci_address), numa_cores());
  if (!cores.empty()) bind_to_cores(cores);
}

void log_gpus(parallel::Communicator& world) {
  RankReport own;
  own.rank = world.rank();
  own.node = parallel::host_name();
  own.cores = own_cores();
  own.gpu = look_at_gpu(own.cores);
  if (!own.gpu) return;  // nor has any other rank
  const auto reports = reports_from(checkpoint::join_lines(world, to_json(own) + "\n"));
  log::info("rank:GPU@NUMA node of each node:{}", gpu_lines(reports));
}

}  // namespace red::launch
