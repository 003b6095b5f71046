// Private to the CUDA backend: pinned host memory that small copies to the device go through, so that they
// are asynchronous and the caller's memory is free at once.
#pragma once

#include <array>
#include <cstddef>
#include <functional>

#include "device/cuda_stream.hpp"

namespace red::detail {

/// What is called before the host waits for the stream; may come back before done(), and may throw.
using WaitForRanks = std::function<void(const std::function<bool()>& done)>;

/// Pieces of pinned memory in turn. A piece is written again when the copy out of it is done: with so many
/// pieces the host hardly ever waits.
class PinnedRing {
 public:
  PinnedRing();
  ~PinnedRing();
  PinnedRing(const PinnedRing&) = delete;
  PinnedRing& operator=(const PinnedRing&) = delete;

  /// Any number of bytes, in stream order; the host memory may be used again when it returns. Each wait for a
  /// piece begins with `wait_for_ranks`, if there is one.
  void copy_to_device(cudaStream_t stream, void* device, const void* host, std::size_t num_bytes,
                      const WaitForRanks& wait_for_ranks);

 private:
  static constexpr std::size_t kPieceBytes = std::size_t{256} << 10;
  static constexpr std::size_t kNumPieces = 8;

  std::byte* memory_ = nullptr;
  std::size_t next_ = 0;
  std::array<CudaEvent, kNumPieces> copied_;
};

}  // namespace red::detail
