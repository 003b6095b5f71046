// What `redllm preflight` knows of each rank's GPU, which GPUs are not fit for a run, and the table of who
// computes where. Pure but for look_at_gpu().
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "device/gpu_sensors.hpp"

namespace red::launch {

struct RankReport;
struct Finding;

struct GpuReport {
  int index = 0;            ///< among those that the rank sees
  std::string name;         ///< "NVIDIA H100 80GB HBM3"
  std::string pci_address;  ///< "0000:19:00.0"
  std::string identity;     ///< hexadecimal, no other's; of an instance of a divided GPU (MIG) its own
  std::optional<int> numa_node;
  std::string near_cores;    ///< of that node, as a list: "0-15"
  std::set<int> core_nodes;  ///< NUMA nodes of the cores that the rank may run on
  std::string no_sensors;    ///< why nothing of the rest is known
  std::string driver;
  uint64_t memory_free = 0;    ///< bytes, before the run's own
  uint64_t memory_needed = 0;  ///< of it by this rank's plan, bytes
  GpuState state;
};

/// The GPU of this process, without its state: the sensors are read under load. Nothing on a CPU.
std::optional<GpuReport> look_at_gpu(const std::vector<int>& cores);

std::string to_json(const GpuReport& report);
/// Of to_json()'s. Throws nlohmann::json::exception.
GpuReport gpu_report_from(const std::string& json);

/// GPUs that are lost, slowed by heat or the power brake, have broken memory, or less free than their ranks
/// plan; ranks bound far from theirs.
void find_gpus(const std::vector<RankReport>& reports, std::vector<Finding>& findings);

/// A line for each rank: node, GPU, NUMA nodes of the GPU and of the rank's cores, clocks, heat, power,
/// errors, free memory. Empty where no rank has a GPU.
std::string gpu_table(const std::vector<RankReport>& reports);

/// A line for each node, each behind a line break: "rank:GPU@NUMA node ...", and "(!1)" behind a rank whose
/// cores are of NUMA node 1 instead.
std::string gpu_lines(const std::vector<RankReport>& reports);

}  // namespace red::launch
