// Runs the grid of one launch: its blocks one after another, each thread a fiber, in the order of options().
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

#include "shim/launch.hpp"

namespace cuda_on_cpu {

/// Ends the program at a barrier that is not reached by all, at lanes that disagree, at a mask that names
/// lanes that do not come. body() is what one thread does.
void run_grid(const LaunchConfig& config, const std::function<void()>& body);

struct GridStatistics {
  uint64_t blocks = 0, threads = 0, switches = 0;
};
/// Of all grids so far.
const GridStatistics& grid_statistics();

}  // namespace cuda_on_cpu
