#include "device/backend.hpp"

namespace red {

void require_backend(int) {}

std::string device_description() {
  return "CPU";
}

}  // namespace red
