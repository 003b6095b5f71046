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

  void add(double a, double b, bool same_bits) {
    ++result.num_elements;
    result.num_different += same_bits ? 0 : 1;
    if (std::isnan(a) || std::isnan(b)) {
      result.num_nan += std::isnan(a) && std::isnan(b) ? 0 : 1;
      return;
    }
    squares_of_a += a * a;
    if (a == b) return;
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
      for_each_value(tensor.dtype, block, [&](double x) { sums.add(x, x, true); });
      continue;
    }
    values.clear();
    for_each_value(tensor.dtype, block, [&](double x) { values.push_back(x); });
    const std::size_t element = size_of(tensor.dtype);
    std::size_t i = 0;
    for_each_value(tensor.dtype, other, [&](double x) {
      const bool same_bits =
          std::memcmp(block.data() + i * element, other.data() + i * element, element) == 0;
      sums.add(values[i++], x, same_bits);
    });
  }
  sums.result.relative = std::sqrt(sums.squares_of_a > 0.0 ? sums.squares / sums.squares_of_a : sums.squares);
  return sums.result;
}

}  // namespace red::checkpoint
