#include "checkpoint/tensor_statistics.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/error.hpp"
#include "checkpoint/shard_layout.hpp"

namespace red::checkpoint {
namespace {

constexpr int64_t kBlockBytes = int64_t{8} << 20;

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

template <class T>
void add_all(const std::vector<std::byte>& block, int64_t count, Sums& sums) {
  const auto* values = reinterpret_cast<const T*>(block.data());
  for (int64_t i = 0; i < count; ++i) sums.add(static_cast<double>(values[i]));
}

void add_block(DType dtype, const std::vector<std::byte>& block, int64_t count, Sums& sums) {
  switch (dtype) {
    case DType::fp32:
      return add_all<float>(block, count, sums);
    case DType::fp64:
      return add_all<double>(block, count, sums);
    case DType::int32:
      return add_all<int32_t>(block, count, sums);
    case DType::uint8:
      return add_all<uint8_t>(block, count, sums);
    case DType::bf16:
      break;
  }
  throw LogicError("no checkpoint holds {}", name_of(dtype));
}

}  // namespace

TensorStatistics statistics_of(const Reader& reader, const LogicalTensor& tensor) {
  const Rectangle area = whole(tensor);
  const int64_t block_size = kBlockBytes / static_cast<int64_t>(size_of(tensor.dtype));
  const int64_t cols = std::min(area.num_cols, block_size);
  const int64_t rows = std::min(area.num_rows, block_size / cols);
  std::vector<std::byte> block(static_cast<std::size_t>(rows * cols) * size_of(tensor.dtype));
  Sums sums;
  for (int64_t row = 0; row < area.num_rows; row += rows) {
    for (int64_t col = 0; col < area.num_cols; col += cols) {
      const int64_t num_rows = std::min(rows, area.num_rows - row);
      const int64_t num_cols = std::min(cols, area.num_cols - col);
      reader.read({tensor, row, num_rows, col, num_cols, block.data(), num_cols});
      add_block(tensor.dtype, block, num_rows * num_cols, sums);
    }
  }
  const int64_t num_numbers = sums.result.num_elements - sums.result.num_nan;
  if (num_numbers > 0) sums.result.rms = std::sqrt(sums.squares / static_cast<double>(num_numbers));
  return sums.result;
}

}  // namespace red::checkpoint
