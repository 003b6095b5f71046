// Sum of squares on the CPU: one read of x, bound by bytes. A tensor is summed as the sequence of its
// elements, whatever its row stride: chunks of fixed size, in fp64, added within a block in order, and the
// blocks in order.
#include <cstring>

#include "ops/blocks.hpp"
#include "ops/reduce.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/reduce_cpu.cpp"
#include <hwy/foreach_target.h>

#include "ops/simd-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace red::ops {
namespace HWY_NAMESPACE {
namespace {

double chunk_sum_of_squares(const float* x, int64_t n) {
  const FloatTag d;
  DoubleSum sum;
  for_each_vector(n, [&](auto access, int64_t i) HWY_ATTR { sum.add_square(access.load(d, x + i)); });
  return sum.total();
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace red::ops
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace red::ops {

HWY_EXPORT(chunk_sum_of_squares);

namespace {

constexpr int64_t kChunk = 1024;       ///< elements
constexpr int64_t kBlock = 64 * 1024;  ///< elements of one task

/// Elements first ... first + count - 1 of the row-major sequence of x, copied to `out` where rows have gaps.
const float* elements(const Tensor& x, int64_t first, int64_t count, float* out) {
  const float* data = x.as<float>();
  if (x.contiguous()) return data + first;
  for (int64_t done = 0; done < count;) {
    const int64_t row = (first + done) / x.cols, col = (first + done) % x.cols;
    const int64_t n = std::min(count - done, x.cols - col);
    std::memcpy(out + done, data + row * x.row_stride + col, static_cast<std::size_t>(n) * sizeof(float));
    done += n;
  }
  return out;
}

}  // namespace

std::size_t sum_of_squares_scratch_bytes(int64_t size) {
  return Arena::rounded(static_cast<std::size_t>((size + kBlock - 1) / kBlock) * sizeof(double));
}

void sum_of_squares(Stream& stream, const Tensor& sum, const Tensor& x) {
  const int64_t size = x.size(), num_blocks = (size + kBlock - 1) / kBlock;
  const ArenaScope scope(stream.scratch());
  double* partial = stream.scratch().allocate<double>(num_blocks, 1).as<double>();
  stream.parallel_for(num_blocks, [&](int64_t block) {
    alignas(64) float gathered[kChunk];
    double total = 0.0;
    const int64_t end = std::min(size, (block + 1) * kBlock);
    for (int64_t first = block * kBlock; first < end; first += kChunk) {
      const int64_t count = std::min(kChunk, end - first);
      total += HWY_DYNAMIC_DISPATCH(chunk_sum_of_squares)(elements(x, first, count, gathered), count);
    }
    partial[block] = total;
  });
  for (int64_t block = 0; block < num_blocks; ++block) *sum.as<double>() += partial[block];
}

}  // namespace red::ops
#endif  // HWY_ONCE
