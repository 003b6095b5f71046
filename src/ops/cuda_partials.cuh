// Private to the CUDA ops: sums of fp64 over whole matrices. The blocks of a pass leave partial sums in
// scratch memory; a second kernel of one block adds them up. Both orders depend on the shape alone.
#pragma once

#include "ops/cuda_reduce.cuh"

namespace red::ops {

/// Blocks of a pass that sums: few enough for the second kernel, enough to fill a GPU.
inline constexpr int64_t kMostPartials = 1024;
inline constexpr int64_t kSumThreads = 256;

/// *to[i] += sum over the blocks b of partials[b kSums + i]
template <int kSums>
struct SumTargets {
  double* to[kSums];
};

template <int kSums>
__global__ void __launch_bounds__(kSumThreads)
    add_partial_sums_kernel(SumTargets<kSums> targets, const double* partials, int64_t num_blocks) {
#pragma unroll
  for (int i = 0; i < kSums; ++i) {
    double sum = 0.0;
    for (int64_t b = threadIdx.x; b < num_blocks; b += blockDim.x) sum += partials[b * kSums + i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) *targets.to[i] += sum;
  }
}

/// What such a pass takes from scratch memory.
template <int kSums>
std::size_t partial_sums_bytes() {
  return Arena::rounded(kMostPartials * kSums * sizeof(double));
}

/// The sums of a block, by one of its threads each, to its place in `partials`.
template <int kSums>
__device__ inline void write_partial_sums(double* partials, const double (&sums)[kSums]) {
  const int64_t block = static_cast<int64_t>(blockIdx.y) * gridDim.x + blockIdx.x;
#pragma unroll
  for (int i = 0; i < kSums; ++i) {
    const double sum = block_sum(sums[i]);
    if (threadIdx.x == 0) partials[block * kSums + i] = sum;
  }
}

/// Blocks (columns, rows) of a pass over a matrix that sums.
inline dim3 summing_grid(int64_t rows, int64_t cols, int lanes) {
  const unsigned x = blocks_for(pieces(pieces(cols, lanes), kSumThreads), kMostPartials);
  return {x, blocks_for(rows, std::max<int64_t>(1, kMostPartials / std::max(1U, x)))};
}

/// run(partials, grid) launches the pass with kSumThreads threads a block; then its sums are added to
/// `targets`.
template <int kSums, class Run>
void sum_in_two_steps(Stream& stream, dim3 grid, const SumTargets<kSums>& targets, const Run& run) {
  const ArenaScope scope(stream.scratch());
  auto* partials = stream.scratch().allocate<double>(kMostPartials, kSums).template as<double>();
  run(partials, grid);
  launch(stream, add_partial_sums_kernel<kSums>, grid.x * grid.y == 0 ? 0 : 1, kSumThreads, targets, partials,
         static_cast<int64_t>(grid.x) * grid.y);
}

}  // namespace red::ops
