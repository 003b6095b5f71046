// Private to the CUDA backend: what stands behind a Stream.
#pragma once

#include "device/cublaslt_gemm.hpp"
#include "device/cuda_stream.hpp"
#include "device/pinned_ring.hpp"
#include "device/stream.hpp"
#include "device/work_timer.hpp"

namespace red {

struct Stream::Backend {
  detail::CudaStream stream;
  detail::PinnedRing to_device;
  detail::CublasLtGemm gemm;
  /// Where ranks talk on the device (parallel/nccl_context): to be called before the host waits for the
  /// stream. Comes back when done(), or when the stream waits for no other rank any more; throws when one is
  /// lost. A plain wait would never end then.
  detail::WaitForRanks wait_for_ranks;
  WorkTimer* work_timer = nullptr;  ///< to be told of waits for other ranks while it times
};

}  // namespace red
