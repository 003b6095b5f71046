// Measures what `redllm preflight` judges: each rank's node, versions and resources, then, all ranks at the
// same time, products of matrices, all-reduces within each node and over each pair of neighbours, and clocks.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "launch/preflight_report.hpp"
#include "launch/ranks.hpp"
#include "train/memory_plan.hpp"

namespace red::launch {

struct ProbeOptions {
  std::filesystem::path run_dir;
  DType dtype = DType::fp32;  ///< of the products
  double gemm_s = 1.0;        ///< seconds of them
  int64_t mib = 16;           ///< of an all-reduce, on each rank
};

/// All ranks' reports, by rank, on every rank. Collective.
std::vector<RankReport> probe(const Ranks& ranks, const train::MemoryPlan& plan, const ProbeOptions& options);

}  // namespace red::launch
