#include "runtime/shared_memory.hpp"

#include <cstdlib>
#include <cstring>

#include "runtime/failure.hpp"
#include "runtime/poison.hpp"

namespace cuda_on_cpu {
namespace {

// As GPUs align it, and at least as much behind it to be caught in.
constexpr std::size_t kAlignment = 128;

std::size_t with_margin(std::size_t num_bytes) {
  return (num_bytes + kAlignment - 1) / kAlignment * kAlignment + kAlignment;
}

}  // namespace

SharedMemory::SharedMemory(std::size_t num_bytes)
    : data_(static_cast<unsigned char*>(std::aligned_alloc(kAlignment, with_margin(num_bytes)))),
      num_bytes_(num_bytes) {
  if (data_ == nullptr) fail("no memory for {} bytes of shared memory", num_bytes);
  poison(data_ + num_bytes, with_margin(num_bytes) - num_bytes);
}

SharedMemory::~SharedMemory() {
  unpoison(data_ + num_bytes_, with_margin(num_bytes_) - num_bytes_);
  std::free(data_);
}

void SharedMemory::forget() {
  std::memset(data_, 0xFF, num_bytes_);
}

}  // namespace cuda_on_cpu
