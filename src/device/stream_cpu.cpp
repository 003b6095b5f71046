#include <cstring>

#include "device/stream.hpp"

namespace red {

void copy_to_device(Stream&, void* device, const void* host, std::size_t num_bytes) {
  if (num_bytes != 0) std::memcpy(device, host, num_bytes);
}

void copy_to_host(Stream&, void* host, const void* device, std::size_t num_bytes) {
  if (num_bytes != 0) std::memcpy(host, device, num_bytes);
}

}  // namespace red
