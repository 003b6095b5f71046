// Private to the CUDA ops: sums over warps and blocks, in an order that is always the same. Every thread of
// the warp or block takes part, and all get the result.
#pragma once

#include "ops/cuda_launch.cuh"

namespace red::ops {

inline constexpr unsigned kWholeWarp = 0xFFFFFFFFU;

struct Sum {
  template <class T>
  __device__ T operator()(T a, T b) const {
    return a + b;
  }
  template <class T>
  static __device__ T nothing() {
    return T(0);
  }
};

/// Over groups of `width` neighbouring lanes, a power of two.
template <class Join, class T>
__device__ inline T warp_reduce(T value, const Join& join, int width = kWarp) {
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
    if (offset < width) value = join(value, __shfl_xor_sync(kWholeWarp, value, offset));
  }
  return value;
}

template <class T>
__device__ inline T warp_sum(T value, int width = kWarp) {
  return warp_reduce(value, Sum(), width);
}

/// Over a block of whole warps, at most 32 of them, one dimensional.
template <class Join, class T>
__device__ inline T block_reduce(T value, const Join& join) {
  __shared__ T of_warp[kWarp];
  const unsigned lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  value = warp_reduce(value, join);
  if (lane == 0) of_warp[warp] = value;
  __syncthreads();
  value = lane < blockDim.x / kWarp ? of_warp[lane] : Join::template nothing<T>();
  value = warp_reduce(value, join);
  __syncthreads();  // of_warp may be written again
  return value;
}

template <class T>
__device__ inline T block_sum(T value) {
  return block_reduce(value, Sum());
}

}  // namespace red::ops
