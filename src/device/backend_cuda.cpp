#include "base/error.hpp"
#include "device/backend.hpp"
#include "device/cuda_device.hpp"

namespace red {

void require_backend(int) {
  detail::require_gpu();
  throw ConfigError(
      "redllm-cuda cannot train, evaluate, generate or bench yet: its ops are there, but the communicator "
      "reads what they leave in GPU memory as if it were the host's. Use redllm, the same program for CPUs");
}

}  // namespace red
