#include "device/backend.hpp"
#include "device/cuda_device.hpp"

namespace red {

void require_backend(int) {
  detail::require_gpu();
}

std::string device_description() {
  detail::require_gpu();
  return detail::gpu_description();
}

}  // namespace red
