// Private to the CUDA backend: what stands behind a Stream.
#pragma once

#include "device/cublaslt_gemm.hpp"
#include "device/cuda_stream.hpp"
#include "device/pinned_ring.hpp"
#include "device/stream.hpp"

namespace red {

struct Stream::Backend {
  detail::CudaStream stream;
  detail::PinnedRing to_device;
  detail::CublasLtGemm gemm;
};

}  // namespace red
