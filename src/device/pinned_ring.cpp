#include "device/pinned_ring.hpp"

#include <algorithm>
#include <cstring>

namespace red::detail {

PinnedRing::PinnedRing() {
  RED_CUDA_CHECK(cudaMallocHost(reinterpret_cast<void**>(&memory_), kPieceBytes * kNumPieces));
}

PinnedRing::~PinnedRing() {
  RED_CUDA_LOG(cudaFreeHost(memory_));
}

void PinnedRing::copy_to_device(cudaStream_t stream, void* device, const void* host, std::size_t num_bytes,
                                const WaitForRanks& wait_for_ranks) {
  for (std::size_t done = 0; done < num_bytes; done += kPieceBytes) {
    const std::size_t size = std::min(kPieceBytes, num_bytes - done);
    CudaEvent& copied = copied_[next_];
    std::byte* piece = memory_ + next_ * kPieceBytes;
    next_ = (next_ + 1) % kNumPieces;
    if (wait_for_ranks && !copied.reached()) wait_for_ranks([&copied] { return copied.reached(); });
    copied.synchronize();
    std::memcpy(piece, static_cast<const std::byte*>(host) + done, size);
    RED_CUDA_CHECK(
        cudaMemcpyAsync(static_cast<std::byte*>(device) + done, piece, size, cudaMemcpyHostToDevice, stream));
    copied.record(stream);
  }
}

}  // namespace red::detail
