// Sum of squares on a GPU: one read of x, bound by bytes. A tensor is summed as the sequence of its elements,
// four after four, whatever its row stride and wherever it lies.
#include "ops/blocks.hpp"
#include "ops/cuda_partials.cuh"
#include "ops/cuda_rows.cuh"
#include "ops/reduce.hpp"

namespace red::ops {
namespace {

constexpr int kQuad = 4;  // elements that a thread takes at a time

/// v = elements first ... of the sequence; 0 behind its end.
__device__ void load_quad(float (&v)[kQuad], const RowsOf<const float>& x, int64_t first, int64_t size,
                          int64_t cols, bool packed) {
  if (packed) return load_some(v, x.data + first, size - first);
#pragma unroll
  for (int i = 0; i < kQuad; ++i) v[i] = first + i < size ? x((first + i) / cols, (first + i) % cols) : 0.0F;
}

/// packed: rows have no gaps, and four elements lie where they can be read at a time.
__global__ void __launch_bounds__(kSumThreads)
    sum_of_squares_kernel(double* partials, RowsOf<const float> x, int64_t size, int64_t cols, bool packed) {
  double sums[1] = {};
  const int64_t num_threads = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i * kQuad < size;
       i += num_threads) {
    float v[kQuad];
    load_quad(v, x, i * kQuad, size, cols, packed);
    for (const float value : v) sums[0] += static_cast<double>(value) * value;
  }
  write_partial_sums(partials, sums);
}

}  // namespace

std::size_t sum_of_squares_scratch_bytes(int64_t) {
  return partial_sums_bytes<1>();
}

void sum_of_squares(Stream& stream, const Tensor& sum, const Tensor& x) {
  RED_CHECK(x.dtype == DType::fp32, "{} squared", name_of(x.dtype));
  const bool packed = x.contiguous() && in_vectors(kQuad, as_one_row(x));
  const dim3 blocks(blocks_for(pieces(pieces(x.size(), kQuad), kSumThreads), kMostPartials));
  const SumTargets<1> target{{sum.as<double>()}};
  sum_in_two_steps(stream, blocks, target, [&](double* partials, dim3 grid) {
    launch(stream, sum_of_squares_kernel, grid, kSumThreads, partials, RowsOf<const float>(x), x.size(),
           x.cols, packed);
  });
}

}  // namespace red::ops
