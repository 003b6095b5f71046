// Private to ops: how a pass over a matrix is cut into tasks. The cut depends on the shape alone, never on
// the number of threads, so that sums formed per block and then in the order of the blocks are always the
// same.
#pragma once

#include <algorithm>
#include <initializer_list>

#include "device/tensor.hpp"

namespace red::ops {

struct Block {
  int64_t row, col, rows, cols;
};

/// Blocks of about kElements of a (rows, cols) matrix: some whole rows each, or pieces of one row each where
/// rows are long. At most 1 + size / (kElements / 2) blocks.
class Blocks {
 public:
  static constexpr int64_t kElements = 32768;

  Blocks(int64_t rows, int64_t cols, int64_t elements = kElements)
      : rows_(rows),
        cols_(cols),
        block_cols_(std::clamp<int64_t>(cols, 1, elements)),
        block_rows_(std::max<int64_t>(1, elements / block_cols_)),
        per_row_((cols + block_cols_ - 1) / block_cols_) {}

  int64_t count() const { return (rows_ + block_rows_ - 1) / block_rows_ * per_row_; }

  Block operator[](int64_t i) const {
    const int64_t row = i / per_row_ * block_rows_;
    const int64_t col = i % per_row_ * block_cols_;
    return {row, col, std::min(block_rows_, rows_ - row), std::min(block_cols_, cols_ - col)};
  }

 private:
  int64_t rows_, cols_, block_cols_, block_rows_, per_row_;
};

/// Whether all of them can be read as one long row.
inline bool all_contiguous(std::initializer_list<const Tensor*> tensors) {
  return std::all_of(tensors.begin(), tensors.end(), [](const Tensor* t) { return t->contiguous(); });
}

/// (1, size) of a contiguous tensor.
inline Tensor as_one_row(Tensor t) {
  t.cols = t.size();
  t.rows = 1;
  t.row_stride = t.cols;
  return t;
}

inline void check_same_shape(const Tensor& a, const Tensor& b) {
  RED_CHECK(a.rows == b.rows && a.cols == b.cols, "({}, {}) and ({}, {})", a.rows, a.cols, b.rows, b.cols);
}

}  // namespace red::ops
