// The running CUDA thread as a kernel sees it: its place in the grid, and barriers.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

namespace cuda_on_cpu {

/// A place in a kernel's source: the optimiser may copy a barrier, but not move it to another line.
struct Site {
  const char* file = "";
  unsigned line = 0;
  /// Of the caller; not std::source_location, which clang-tidy 14 cannot read.
  static constexpr Site current(const char* file = __builtin_FILE(), unsigned line = __builtin_LINE()) {
    return {file, line};
  }
};

struct ThreadContext {
  uint3 thread_index, block_index;
  dim3 block_dim, grid_dim;
  // For the checks, which ask at every access to memory.
  unsigned index = 0;                ///< in the block
  const std::byte* stack = nullptr;  ///< where the thread's own stack begins
  std::size_t stack_bytes = 0;
};

/// Null while host code runs. __thread, since a thread_local of another file is read through a wrapper.
extern __thread ThreadContext* current_thread;
/// The running block's dynamic shared memory.
extern __thread unsigned char* dynamic_shared_memory;

/// Of one barrier for a whole block.
struct BarrierVotes {
  int all, any, count;
};

/// Waits for all threads of the block, all at the same site.
BarrierVotes block_barrier(const Site& site, bool vote);

/// What the lanes of a warp do together.
enum class WarpOperation : uint8_t { sync, shuffle, ballot };

/// Waits for all lanes of the mask. shuffle: `num_bytes` of `in` of lane `source` arrive in `out`; ballot:
/// the lanes with source != 0 as a mask in `out`.
void warp_operation(const Site& site, WarpOperation operation, unsigned mask, const void* in, void* out,
                    std::size_t num_bytes, int source);

unsigned lane_id();

}  // namespace cuda_on_cpu

#define threadIdx (::cuda_on_cpu::current_thread->thread_index)
#define blockIdx (::cuda_on_cpu::current_thread->block_index)
#define blockDim (::cuda_on_cpu::current_thread->block_dim)
#define gridDim (::cuda_on_cpu::current_thread->grid_dim)
inline constexpr int warpSize = 32;

inline void __syncthreads(const cuda_on_cpu::Site& site = cuda_on_cpu::Site::current()) {
  cuda_on_cpu::block_barrier(site, false);
}
inline int __syncthreads_and(int vote, const cuda_on_cpu::Site& site = cuda_on_cpu::Site::current()) {
  return cuda_on_cpu::block_barrier(site, vote != 0).all;
}
inline int __syncthreads_or(int vote, const cuda_on_cpu::Site& site = cuda_on_cpu::Site::current()) {
  return cuda_on_cpu::block_barrier(site, vote != 0).any;
}
inline int __syncthreads_count(int vote, const cuda_on_cpu::Site& site = cuda_on_cpu::Site::current()) {
  return cuda_on_cpu::block_barrier(site, vote != 0).count;
}

// Fibers share one CPU, which sees its own writes in order. The race checker takes no fence for a barrier.
inline void __threadfence() {}
inline void __threadfence_block() {}
inline void __threadfence_system() {}
