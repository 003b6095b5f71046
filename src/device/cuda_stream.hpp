// Private to the CUDA backend: handles of CUDA's streams and events.
#pragma once

#include <utility>

#include "device/cuda_check.hpp"

namespace red::detail {

/// Does not wait for the default stream, which nobody uses.
class CudaStream {
 public:
  CudaStream() { RED_CUDA_CHECK(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking)); }
  ~CudaStream() { RED_CUDA_LOG(cudaStreamDestroy(stream_)); }
  CudaStream(const CudaStream&) = delete;
  CudaStream& operator=(const CudaStream&) = delete;
  cudaStream_t get() const { return stream_; }
  void synchronize() const { RED_CUDA_CHECK(cudaStreamSynchronize(stream_)); }

 private:
  cudaStream_t stream_ = nullptr;
};

enum class Timing : bool { off = false, on = true };

class CudaEvent {
 public:
  explicit CudaEvent(Timing timing = Timing::off) {
    RED_CUDA_CHECK(
        cudaEventCreateWithFlags(&event_, timing == Timing::on ? cudaEventDefault : cudaEventDisableTiming));
  }
  ~CudaEvent() { RED_CUDA_LOG(cudaEventDestroy(event_)); }
  CudaEvent(const CudaEvent&) = delete;
  CudaEvent& operator=(const CudaEvent&) = delete;
  void record(cudaStream_t stream) { RED_CUDA_CHECK(cudaEventRecord(event_, stream)); }
  /// Returns at once when it was never recorded.
  void synchronize() const { RED_CUDA_CHECK(cudaEventSynchronize(event_)); }
  /// Milliseconds from `begin` to this one; both were reached.
  float milliseconds_since(const CudaEvent& begin) const {
    float milliseconds = 0.0F;
    RED_CUDA_CHECK(cudaEventElapsedTime(&milliseconds, begin.event_, event_));
    return milliseconds;
  }

 private:
  cudaEvent_t event_ = nullptr;
};

}  // namespace red::detail
