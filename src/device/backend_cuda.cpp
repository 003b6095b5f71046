#include "base/error.hpp"
#include "device/backend.hpp"
#include "device/cuda_device.hpp"

namespace red {

void require_backend(int num_ranks) {
  detail::require_gpu();
  if (num_ranks > 1)
    throw ConfigError(
        "redllm-cuda runs on one rank, not on {}: ranks cannot exchange what is in GPU memory yet. Start "
        "one, or "
        "use redllm, the same program for CPUs",
        num_ranks);
}

}  // namespace red
