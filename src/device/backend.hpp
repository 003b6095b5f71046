// What the linked backend asks of the run that begins.
#pragma once

#include <string>

namespace red {

/// Throws ConfigError when this process cannot compute as one of so many ranks: without a GPU that the
/// program was made for, say. Before anything is allocated.
void require_backend(int num_ranks);

/// What this process computes on, for logs and figures: "CPU", or "GPU 2 of 4, NVIDIA H100 80GB HBM3, sm_90".
std::string device_description();

}  // namespace red
