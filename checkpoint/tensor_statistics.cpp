#include "checkpoint/tensor_statistics.hpp"

#include <cmath>
#include <span>

#include "checkpoint/tensor_blocks.hpp"

namespace red::checkpoint {
namespace {

struct Sums {
  TensorStatistics result;
  double squares = 0;

  void add(double x) {
    ++result.num_elements;
    if (std::isnan(x)) {
      ++result.num_nan;
      return;
    }
    result.num_infinite += std::isinf(x);
    squares += x * x;
    // The first number replaces NaN, with which no comparison holds.
    if (!(x >= result.min)) result.min = x;
    if (!(x <= result.max)) result.max = x;
  }
};

void add_block(DType dtype, std::span<const std::byte> block, Sums& sums) {
  for_each_value(dtype, block, [&](double x) { sums.add(x); });
}

}  // namespace

TensorStatistics statistics_of(const Reader& reader, const LogicalTensor& tensor) {
  Sums sums;
  TensorBlocks blocks(reader, tensor);
  for (auto block = blocks.next(); !block.empty(); block = blocks.next())
    add_block(tensor.dtype, block, sums);
  const int64_t num_numbers = sums.result.num_elements - sums.result.num_nan;
  if (num_numbers > 0) sums.result.rms = std::sqrt(sums.squares / static_cast<double>(num_numbers));
  return sums.result;
}

}  // namespace red::checkpoint
