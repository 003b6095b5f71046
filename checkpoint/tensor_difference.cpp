#include "checkpoint/tensor_difference.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/check.hpp"
#include "checkpoint/tensor_blocks.hpp"

namespace red::checkpoint {
namespace {

struct Sums {
  TensorDifference result;
  double squares = 0.0, squares_of_a = 0.0;

  void add(double a, double b) {
    ++result.num_elements;
    if (std::isnan(a) || std::isnan(b)) {
      const bool both = std::isnan(a) && std::isnan(b);
      result.num_different += both ? 0 : 1;
      result.num_nan += both ? 0 : 1;
      return;
    }
    squares_of_a += a * a;
    if (a == b) return;
    ++result.num_different;
    const double difference = std::abs(a - b);
    result.largest = std::max(result.largest, difference);
    squares += difference * difference;
  }
};

}  // namespace

TensorDifference difference_of(const Reader& a, const Reader& b, const LogicalTensor& tensor) {
  TensorBlocks blocks_a(a, tensor), blocks_b(b, tensor);
  Sums sums;
  std::vector<double> values;
  for (auto block = blocks_a.next(); !block.empty(); block = blocks_a.next()) {
    const auto other = blocks_b.next();
    RED_CHECK(other.size() == block.size(), "blocks of {} and {} bytes", block.size(), other.size());
    if (std::memcmp(block.data(), other.data(), block.size()) == 0) {
      for_each_value(tensor.dtype, block, [&](double x) { sums.add(x, x); });
      continue;
    }
    values.clear();
    for_each_value(tensor.dtype, block, [&](double x) { values.push_back(x); });
    std::size_t i = 0;
    for_each_value(tensor.dtype, other, [&](double x) { sums.add(values[i++], x); });
  }
  sums.result.relative = std::sqrt(sums.squares_of_a > 0.0 ? sums.squares / sums.squares_of_a : sums.squares);
  return sums.result;
}

}  // namespace red::checkpoint
