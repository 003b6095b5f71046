// Host memory. Large buffers come from mmap, so that pages are first touched by whoever uses them and can be
// huge.
#include <sys/mman.h>

#include <atomic>
#include <cerrno>
#include <cstring>

#include "device/buffer.hpp"

namespace red {
namespace {

std::atomic<std::size_t>& allocation_count() {
  static std::atomic<std::size_t> count{0};
  return count;
}

}  // namespace

Buffer::Buffer(std::size_t num_bytes, Memory memory) : num_bytes_(num_bytes) {
  if (num_bytes == 0 || memory == Memory::counted) return;
  void* p = mmap(nullptr, num_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) {
    num_bytes_ = 0;
    throw IoError(
        "cannot allocate {:.1f} MiB of memory: {}; use a smaller model or micro-batch, or more ranks",
        static_cast<double>(num_bytes) / (1 << 20), std::strerror(errno));
  }
  madvise(p, num_bytes, MADV_HUGEPAGE);  // advice: a kernel without it refuses, and nothing is lost
  data_ = static_cast<std::byte*>(p);
  ++allocation_count();
}

Buffer::~Buffer() {
  if (data_ != nullptr) munmap(data_, num_bytes_);
}

std::size_t Buffer::num_allocations() {
  return allocation_count();
}

}  // namespace red
