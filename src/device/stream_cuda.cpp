#include "device/cuda_device.hpp"
#include "device/stream_backend_cuda.hpp"

namespace red {
namespace {

cudaMemoryType type_of(const void* address) {
  cudaPointerAttributes attributes{};
  RED_CUDA_CHECK(cudaPointerGetAttributes(&attributes, address));
  return attributes.type;
}

}  // namespace

Stream::Stream(int num_threads, std::size_t scratch_bytes, GemmChoice gemm)
    : gemm_(&gemm_library(gemm)), threads_(num_threads), scratch_("op scratch", scratch_bytes) {}

Stream::~Stream() {
  if (!backend_) return;
  // The ring of pinned memory and cuBLASLt wait for the device when they end.
  if (detail::leaves_by_exception()) {
    static_cast<void>(backend_.release());
    return;
  }
  // Ops may still read what is freed next.
  RED_CUDA_LOG(cudaStreamSynchronize(backend_->stream.get()));
}

Stream::Backend& Stream::backend() {
  if (!backend_) {
    detail::require_gpu();
    backend_ = std::make_unique<Backend>();
  }
  return *backend_;
}

CUstream_st* Stream::handle() {
  return backend().stream.get();
}

void Stream::synchronize() {
  if (!backend_) return;
  if (backend_->wait_for_ranks) backend_->wait_for_ranks([this] { return backend_->stream.idle(); });
  backend_->stream.synchronize();
}

void copy_to_device(Stream& stream, void* device, const void* host, std::size_t num_bytes) {
  Stream::Backend& backend = stream.backend();
  backend.to_device.copy_to_device(backend.stream.get(), device, host, num_bytes, backend.wait_for_ranks);
}

void copy_to_host(Stream& stream, void* host, const void* device, std::size_t num_bytes) {
  if (num_bytes == 0) return;
  // Into memory that is not pinned CUDA copies before the call returns, and waits for the stream where nobody
  // sees that a rank is lost.
  if (type_of(host) != cudaMemoryTypeHost) stream.synchronize();
  RED_CUDA_CHECK(cudaMemcpyAsync(host, device, num_bytes, cudaMemcpyDeviceToHost, stream.handle()));
}

void copy_on_device(Stream& stream, void* to, const void* from, std::size_t num_bytes) {
  if (num_bytes == 0) return;
  RED_CUDA_CHECK(cudaMemcpyAsync(to, from, num_bytes, cudaMemcpyDeviceToDevice, stream.handle()));
}

void fill_zero(Stream& stream, void* device, std::size_t num_bytes) {
  if (num_bytes == 0) return;
  RED_CUDA_CHECK(cudaMemsetAsync(device, 0, num_bytes, stream.handle()));
}

bool on_device(const void* address) {
  return type_of(address) == cudaMemoryTypeDevice;
}

void synchronize_device() {
  detail::require_gpu();
  RED_CUDA_CHECK(cudaDeviceSynchronize());
}

}  // namespace red
