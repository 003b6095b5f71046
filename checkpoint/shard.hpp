// What a checkpoint is made of: rectangles of logical tensors. The writer is told which rectangle of which
// tensor each rank holds; the reader is asked for rectangles. Neither knows of layouts.
#pragma once

#include <cstdint>
#include <string>

#include "base/dtype.hpp"

namespace red::checkpoint {

/// A logical tensor: "parameters/NAME", "optimizer/v/NAME", ... ; vectors have cols = 0 and are written as
/// rank 1.
struct LogicalTensor {
  std::string path;
  int64_t rows = 0;  ///< global
  int64_t cols = 0;  ///< global; 0: a vector of `rows` elements
  DType dtype = DType::fp32;
};

/// Rows [row_begin, row_begin + num_rows) x columns [col_begin, col_begin + num_cols) of a tensor, in host
/// memory.
struct Shard {
  LogicalTensor tensor;
  int64_t row_begin = 0, num_rows = 0;
  int64_t col_begin = 0, num_cols = 0;  ///< a vector: 0 and 1
  void* data = nullptr;                 ///< first element
  int64_t row_stride = 0;               ///< elements
};

}  // namespace red::checkpoint
