// What `redllm preflight` knows about each rank and its node, and which of them are not fit for a run. Pure:
// launch/preflight_probe measures.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "launch/gpu_report.hpp"

namespace red::launch {

struct RankReport {
  int rank = 0;
  std::string node;        ///< Slurm's name of it, or the host's
  std::vector<int> cores;  ///< that the rank may run on
  int num_cores_of_host = 0;
  std::set<int> numa_nodes;  ///< of these cores; empty where the host has one
  int threads = 1;
  std::map<std::string, std::string>
      versions;  ///< of what must be equal everywhere; what a rank leaves out counts not
  std::string processor;
  double gemm_gflops = 0.0;
  double local_gb_s =
      0.0;                 ///< all-reduce over the node's ranks, bytes of one by its time; 0: it has only one
  double next_gb_s = 0.0;  ///< the same over this node and the next; 0: it is the last
  double clock_s = 0.0;    ///< ahead of rank 0's
  double clock_uncertainty_s = 0.0;
  uint64_t memory_free = 0;    ///< of the node, bytes
  uint64_t memory_needed = 0;  ///< by this rank's plan, bytes
  uint64_t disk_free = 0;      ///< where the run's folder is, bytes
  std::string disk_error;      ///< the run's folder cannot be written from here
  std::optional<GpuReport> gpu;
};

std::string to_json(const RankReport& report);
/// Of to_json()'s lines, by rank. Throws LogicError.
std::vector<RankReport> reports_from(const std::string& lines);

/// A node's figures; rates are those of its slowest rank but for the mean of products.
struct NodeSummary {
  std::string name;
  std::vector<int> ranks;
  double gemm_gflops = 0.0;  ///< mean of its ranks
  double local_gb_s = 0.0, next_gb_s = 0.0;
  double clock_s = 0.0;  ///< farthest of its ranks
  double clock_uncertainty_s = 0.0;
  uint64_t memory_free = 0, memory_needed = 0, disk_free = 0;
};

/// In the order of their first ranks.
std::vector<NodeSummary> nodes_of(const std::vector<RankReport>& reports);
/// Of each report's node, its place in nodes_of().
std::vector<int> node_indices(const std::vector<std::string>& node_of_rank);

struct PreflightLimits {
  double slower_by = 0.15;   ///< share of the median that a rate may be below it
  double clock_s = 0.5;      ///< that a clock may be off
  uint64_t disk_needed = 0;  ///< bytes
  int scheduled_tasks = 0;   ///< that the scheduler says the job has; 0: it says nothing
};

struct Finding {
  std::string text;                ///< what is wrong, where, how to mend it
  std::vector<std::string> nodes;  ///< that a job could do without; empty: leaving nodes out does not help
  bool stops = true;               ///< false: worth a line only
};

std::vector<Finding> judge(const std::vector<RankReport>& reports, const PreflightLimits& limits);

}  // namespace red::launch
