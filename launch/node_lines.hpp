// What `redllm preflight` prints of each node beside its rates: cores, threads and versions.
#pragma once

#include <string>
#include <vector>

#include "launch/preflight_report.hpp"

namespace red::launch {

/// Two lines for all nodes that are alike: "n0, n1: 2 ranks on all cores 0-3 (2 threads)", and their
/// versions.
std::string node_lines(const std::vector<RankReport>& reports);

}  // namespace red::launch
