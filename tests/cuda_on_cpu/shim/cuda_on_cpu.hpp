// Included before every kernel file when it is compiled as C++: what nvcc knows by itself. The toolkit's own
// headers give types and prototypes, so that a wrong call does not compile. One CUDA thread is one fiber
// (fiber.hpp); the blocks of a grid run one after another on the calling thread.
#pragma once

#ifdef __CUDACC__
#error "for the host's compiler only"
#endif

/// For *_tensor_core.cuh alone: what has no spelling in C++ has another there.
#define CUDA_ON_CPU 1

// The toolkit's host_defines.h keeps a definition that is there already.
#define __host__
#define __device__
#define __global__
#define __constant__
#define __grid_constant__
// All threads of the one block that runs share it, and AddressSanitizer puts red zones around it.
#define __shared__ static

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#undef __launch_bounds__
#define __launch_bounds__(...)
#undef __noinline__  // libstdc++ spells the attribute so

#include "shim/atomics.hpp"
#include "shim/intrinsics.hpp"
#include "shim/thread.hpp"
#include "shim/warp.hpp"
