// Private to the CUDA backend: handles of CUDA's streams and events.
#pragma once

#include <utility>

#include "device/cuda_check.hpp"

namespace red::detail {

/// What a query says. Not to be ready is no error, and must not stay behind as the last one.
inline bool is_ready(cudaError_t answer) {
  if (answer == cudaErrorNotReady) {
    static_cast<void>(cudaGetLastError());
    return false;
  }
  RED_CUDA_CHECK(answer);
  return true;
}

enum class Priority : bool { normal = false, high = true };

/// Does not wait for the default stream, which nobody uses.
class CudaStream {
 public:
  explicit CudaStream(Priority priority = Priority::normal) {
    if (priority == Priority::normal) {
      RED_CUDA_CHECK(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
      return;
    }
    int least = 0, greatest = 0;
    RED_CUDA_CHECK(cudaDeviceGetStreamPriorityRange(&least, &greatest));
    RED_CUDA_CHECK(cudaStreamCreateWithPriority(&stream_, cudaStreamNonBlocking, greatest));
  }
  ~CudaStream() { RED_CUDA_LOG(cudaStreamDestroy(stream_)); }
  CudaStream(const CudaStream&) = delete;
  CudaStream& operator=(const CudaStream&) = delete;
  cudaStream_t get() const { return stream_; }
  void synchronize() const { RED_CUDA_CHECK(cudaStreamSynchronize(stream_)); }
  /// Whether all work given so far is done.
  bool idle() const { return is_ready(cudaStreamQuery(stream_)); }

 private:
  cudaStream_t stream_ = nullptr;
};

/// Memory for a while, taken and given back in the order of a stream. To free any other waits for the whole
/// device, which may wait for another rank.
class StreamMemory {
 public:
  /// Without memory for it, data() is null.
  StreamMemory(cudaStream_t stream, std::size_t num_bytes) : stream_(stream) {
    const cudaError_t error = cudaMallocAsync(&data_, num_bytes, stream);
    if (error == cudaErrorMemoryAllocation) {
      static_cast<void>(cudaGetLastError());
      data_ = nullptr;
      return;
    }
    RED_CUDA_CHECK(error);
  }
  ~StreamMemory() {
    if (data_ != nullptr) RED_CUDA_LOG(cudaFreeAsync(data_, stream_));
  }
  StreamMemory(const StreamMemory&) = delete;
  StreamMemory& operator=(const StreamMemory&) = delete;
  void* data() const { return data_; }

 private:
  cudaStream_t stream_;
  void* data_ = nullptr;
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
  /// Whether the stream has come to the last record; true when there was none.
  bool reached() const { return is_ready(cudaEventQuery(event_)); }
  /// What `stream` is given from now on runs after the last record.
  void hold(cudaStream_t stream) const { RED_CUDA_CHECK(cudaStreamWaitEvent(stream, event_, 0)); }
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
