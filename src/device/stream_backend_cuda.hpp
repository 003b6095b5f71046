// Private to the CUDA backend: what stands behind a Stream.
#pragma once

#include "device/cublaslt_gemm.hpp"
#include "device/cuda_stream.hpp"
#include "device/pinned_ring.hpp"
#include "device/stream.hpp"

namespace red {

struct Stream::Backend {
  explicit Backend(const GemmLibrary& library)
      : gemm(library.choice == GemmChoice::tf32 ? detail::Fp32Products::tf32 : detail::Fp32Products::exact) {}

  detail::CudaStream stream;
  detail::PinnedRing to_device;
  detail::CublasLtGemm gemm;
};

}  // namespace red
