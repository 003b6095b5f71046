#include "checkpoint/tensor_blocks.hpp"

#include <algorithm>

#include "checkpoint/shard_layout.hpp"

namespace red::checkpoint {
namespace {

constexpr int64_t kBlockBytes = int64_t{8} << 20;

}  // namespace

/// A block is some whole rows, or a part of one.
TensorBlocks::TensorBlocks(const Reader& reader, const LogicalTensor& tensor)
    : reader_(reader), tensor_(tensor) {
  const Rectangle area = whole(tensor);
  const int64_t elements = kBlockBytes / static_cast<int64_t>(size_of(tensor.dtype));
  cols_ = std::min(area.num_cols, elements);
  rows_ = std::min(area.num_rows, elements / cols_);
  block_.resize(static_cast<std::size_t>(rows_ * cols_) * size_of(tensor.dtype));
}

std::span<const std::byte> TensorBlocks::next() {
  const Rectangle area = whole(tensor_);
  if (row_ >= area.num_rows) return {};
  const int64_t num_rows = std::min(rows_, area.num_rows - row_);
  const int64_t num_cols = std::min(cols_, area.num_cols - col_);
  reader_.read({tensor_, row_, num_rows, col_, num_cols, block_.data(), num_cols});
  col_ += num_cols;
  if (col_ == area.num_cols) {
    col_ = 0;
    row_ += num_rows;
  }
  return std::span(block_).first(static_cast<std::size_t>(num_rows * num_cols) * size_of(tensor_.dtype));
}

}  // namespace red::checkpoint
