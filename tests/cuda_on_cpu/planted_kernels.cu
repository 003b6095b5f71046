#include <cuda_runtime.h>

#include <array>
#include <limits>

#include "device/gpu_launch.cuh"
#include "planted_kernels.hpp"

namespace cuda_on_cpu {
namespace {

constexpr unsigned kWholeWarp = 0xFFFFFFFFU;

__device__ float warp_sum(float value) {
  for (int offset = 16; offset > 0; offset /= 2) value += __shfl_xor_sync(kWholeWarp, value, offset);
  return value;
}

/// Its second call writes `of_warp` while slow warps still read it.
template <bool kBug>
__device__ float block_sum(float value) {
  __shared__ float of_warp[32];
  const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  value = warp_sum(value);
  if (lane == 0) of_warp[warp] = value;
  __syncthreads();
  value = lane < blockDim.x / 32 ? of_warp[lane] : 0.0F;
  if constexpr (!kBug) __syncthreads();
  return warp_sum(value);
}

template <bool kBug>
__global__ void two_sums(float* out) {
  const float first = block_sum<kBug>(1.0F), second = block_sum<kBug>(static_cast<float>(threadIdx.x));
  out[threadIdx.x] = first + second;
}

template <bool kBug>
__global__ void no_barrier(float* out) {
  GPU_DYN_SMEM(float, shared);
  shared[threadIdx.x] = static_cast<float>(threadIdx.x);
  if constexpr (!kBug) __syncthreads();
  out[threadIdx.x] = shared[blockDim.x - 1 - threadIdx.x];
}

template <bool kBug>
__global__ void no_warp_barrier(float* out) {
  GPU_DYN_SMEM(float, shared);
  shared[threadIdx.x] = static_cast<float>(threadIdx.x);
  if constexpr (!kBug) __syncwarp();
  out[threadIdx.x] = shared[threadIdx.x ^ 1U];
}

/// All lanes read what lane 0 then reads and writes.
template <bool kBug>
__global__ void write_after_reads(float* out) {
  GPU_DYN_SMEM(float, shared);
  if (threadIdx.x % 32 == 0) shared[threadIdx.x] = 1.0F;
  __syncwarp();
  const float before = shared[threadIdx.x / 32 * 32];
  if constexpr (!kBug) __syncwarp();
  if (threadIdx.x % 32 == 0) shared[threadIdx.x] += 1.0F;
  out[threadIdx.x] = before;
}

template <bool kBug>
__global__ void two_barriers(float* out) {
  if (kBug && threadIdx.x < 16) {
    __syncthreads();
    out[threadIdx.x] = 1.0F;
  } else {
    out[threadIdx.x] = 1.0F;
    __syncthreads();
  }
}

template <bool kBug>
__global__ void early_exit(float* out) {
  out[threadIdx.x] = 1.0F;
  if (kBug && threadIdx.x > 40) return;
  __syncthreads();
}

template <bool kBug>
__global__ void absent_lanes(float* out) {
  float value = 1.0F;
  if (threadIdx.x % 32 < 16) value = __shfl_xor_sync(kBug ? kWholeWarp : 0xFFFFU, value, 1);
  out[threadIdx.x] = value;
}

template <bool kBug>
__global__ void source_outside_mask(float* out) {
  float value = 1.0F;
  if (threadIdx.x % 32 < 16) value = __shfl_xor_sync(0xFFFFU, value, kBug ? 16 : 1);
  out[threadIdx.x] = value;
}

template <bool kBug>
__global__ void lane_not_in_mask(float* out) {
  float value = 1.0F;
  if (threadIdx.x % 32 < 16 || kBug) value = __shfl_xor_sync(0xFFFFU, value, 1);
  out[threadIdx.x] = value;
}

template <bool kBug>
__global__ void lanes_disagree(float* out) {
  const float mine = static_cast<float>(threadIdx.x % 2);
  float value = mine;
  if (kBug && threadIdx.x % 32 < 16) {
    value = __shfl_xor_sync(kWholeWarp, mine, 1);
  } else {
    value = __shfl_xor_sync(kWholeWarp, mine, 1);
  }
  out[threadIdx.x] = value;
}

template <bool kBug>
__global__ void static_overrun(float* out) {
  __shared__ float shared[32];
  if (threadIdx.x < 32) shared[threadIdx.x] = 1.0F;
  __syncthreads();
  const float* from = shared;
  out[threadIdx.x] = from[threadIdx.x % 32 + (kBug ? 1 : 0)];
}

template <bool kBug>
__global__ void dynamic_overrun(float* out) {
  GPU_DYN_SMEM(float, shared);
  const unsigned i = threadIdx.x + (kBug ? 1 : 0);
  shared[i] = 1.0F;
  out[threadIdx.x] = shared[i];
}

template <bool kBug>
__global__ void global_overrun(float* out) {
  out[threadIdx.x + (kBug ? 1 : 0)] = 1.0F;
}

template <bool kBug>
__global__ void misaligned(float* out) {
  const float4 values = *reinterpret_cast<const float4*>(out + (kBug ? 1 : 0));
  if (threadIdx.x == 0) out[9] = values.x;
}

template <bool kBug>
__global__ void unwritten_shared(float* out) {
  GPU_DYN_SMEM(float, shared);
  if (!kBug || threadIdx.x < 63) shared[threadIdx.x] = 1.0F;
  __syncthreads();
  out[threadIdx.x] = shared[63];
}

template <bool kBug>
__global__ void blocks_share(float* out) {
  if constexpr (kBug) {
    out[threadIdx.x] += 1.0F;
  } else {
    atomicAdd(out + threadIdx.x, 1.0F);
  }
}

/// A block reads what another one writes.
template <bool kBug>
__global__ void reads_of_another_block(float* out) {
  const unsigned half = blockDim.x / 2, i = blockIdx.x * half + threadIdx.x % half;
  const float neighbour = kBug ? out[(i + half) % blockDim.x] : 0.0F;
  if (threadIdx.x < half) out[i] = neighbour + 1.0F;
}

constexpr std::size_t kSharedBytes = kPlantedThreads * sizeof(float);

template <class Kernel>
void run(Kernel good, Kernel bad, bool bug, unsigned blocks, std::size_t shared_bytes, cudaStream_t stream,
         float* out) {
  gpu::launch(bug ? bad : good, blocks, kPlantedThreads, shared_bytes, stream, out);
}

float one(int) {
  return 1.0F;
}
float anything(int) {
  return std::numeric_limits<float>::quiet_NaN();
}

#define PLANTED(kernel, blocks, shared_bytes, expected)                                                     \
  PlantedBug {                                                                                              \
#kernel,                                                                                                \
        [](bool bug, cudaStream_t stream,                                                                   \
           float* out) { run(kernel<false>, kernel<true>, bug, blocks, shared_bytes, stream, out); },       \
                                                                                                   expected \
  }

constexpr std::array kPlanted = {
    PLANTED(two_sums, 1, 0, [](int) { return 64.0F + 2016.0F; }),
    PLANTED(no_barrier, 1, kSharedBytes, [](int i) { return static_cast<float>(63 - i); }),
    PLANTED(no_warp_barrier, 1, kSharedBytes, [](int i) { return static_cast<float>(i ^ 1); }),
    PLANTED(write_after_reads, 1, kSharedBytes, one),
    PLANTED(two_barriers, 1, 0, one),
    PLANTED(early_exit, 1, 0, one),
    PLANTED(absent_lanes, 1, 0, one),
    PLANTED(source_outside_mask, 1, 0, one),
    PLANTED(lane_not_in_mask, 1, 0, one),
    PLANTED(lanes_disagree, 1, 0, [](int i) { return static_cast<float>((i + 1) % 2); }),
    PLANTED(static_overrun, 1, 0, one),
    PLANTED(dynamic_overrun, 1, kSharedBytes, one),
    PLANTED(global_overrun, 1, 0, one),
    PLANTED(misaligned, 1, 0, anything),
    PLANTED(unwritten_shared, 1, kSharedBytes, one),
    PLANTED(blocks_share, 2, 0, [](int) { return 2.0F; }),
    PLANTED(reads_of_another_block, 2, 0, one),
};

}  // namespace

std::span<const PlantedBug> planted_kernels() {
  return kPlanted;
}

}  // namespace cuda_on_cpu
