// Host memory. Large buffers come from mmap, so that pages are first touched by whoever uses them and can be
// huge.
#include <sys/mman.h>

#include <cerrno>
#include <cstring>

#include "device/buffer.hpp"

namespace red {
namespace {

std::byte* map(std::size_t num_bytes) {
  void* p = mmap(nullptr, num_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) {
    throw IoError(
        "cannot allocate {:.1f} MiB of memory: {}; use a smaller model or micro-batch, or more ranks",
        static_cast<double>(num_bytes) / (1 << 20), std::strerror(errno));
  }
  madvise(p, num_bytes, MADV_HUGEPAGE);  // advice: a kernel without it refuses, and nothing is lost
  return static_cast<std::byte*>(p);
}

}  // namespace

std::byte* DeviceSpace::allocate(std::size_t num_bytes) {
  return map(num_bytes);
}

void DeviceSpace::release(std::byte* data, std::size_t num_bytes) noexcept {
  munmap(data, num_bytes);
}

std::byte* HostSpace::allocate(std::size_t num_bytes) {
  return map(num_bytes);
}

void HostSpace::release(std::byte* data, std::size_t num_bytes) noexcept {
  munmap(data, num_bytes);
}

}  // namespace red
