#include <cstring>

#include "device/stream.hpp"

namespace red {

/// An op is done when its call returns: there is nothing to keep.
struct Stream::Backend {};

Stream::Stream(int num_threads, std::size_t scratch_bytes, GemmChoice gemm)
    : gemm_(&gemm_library(gemm)), threads_(num_threads), scratch_("op scratch", scratch_bytes) {}

Stream::~Stream() = default;

Stream::Backend& Stream::backend() {
  if (!backend_) backend_ = std::make_unique<Backend>();
  return *backend_;
}

CUstream_st* Stream::handle() {
  return nullptr;
}

void Stream::synchronize() {}

void synchronize_device() {}

void copy_to_device(Stream&, void* device, const void* host, std::size_t num_bytes) {
  if (num_bytes != 0) std::memcpy(device, host, num_bytes);
}

void copy_to_host(Stream&, void* host, const void* device, std::size_t num_bytes) {
  if (num_bytes != 0) std::memcpy(host, device, num_bytes);
}

void copy_on_device(Stream&, void* to, const void* from, std::size_t num_bytes) {
  if (num_bytes != 0) std::memcpy(to, from, num_bytes);
}

void fill_zero(Stream&, void* device, std::size_t num_bytes) {
  if (num_bytes != 0) std::memset(device, 0, num_bytes);
}

bool on_device(const void*) {
  return false;
}

}  // namespace red
