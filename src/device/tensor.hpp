// Tensor: a view of a row-major matrix in device memory that somebody else owns. Two dims are enough:
// activations are packed (tokens, width), with all sequences of a micro-batch one after another and no
// padding rows; vectors and gains are (n, 1); device scalars are (1, 1).
#pragma once

#include <cstdint>

#include "base/check.hpp"
#include "base/dtype.hpp"

namespace red {

struct Tensor {
  std::byte* data = nullptr;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t row_stride = 0;  ///< elements from one row to the next, >= cols
  DType dtype = DType::fp32;

  bool empty() const { return data == nullptr; }
  int64_t size() const { return rows * cols; }
  bool contiguous() const { return row_stride == cols || rows <= 1; }

  /// The first element, checked against the dtype.
  template <class T>
  T* as() const {
    RED_CHECK(dtype == dtype_of<T>(), "tensor holds {}", name_of(dtype));
    return reinterpret_cast<T*>(data);
  }

  /// (count, cols), rows begin ... begin + count - 1.
  Tensor row_range(int64_t begin, int64_t count) const {
    RED_CHECK(begin >= 0 && count >= 0 && begin + count <= rows, "rows {} + {} of {}", begin, count, rows);
    Tensor t = *this;
    if (!empty()) t.data += static_cast<std::size_t>(begin * row_stride) * size_of(dtype);
    t.rows = count;
    return t;
  }
  /// (rows, count), columns begin ... begin + count - 1; keeps the row stride.
  Tensor col_range(int64_t begin, int64_t count) const {
    RED_CHECK(begin >= 0 && count >= 0 && begin + count <= cols, "cols {} + {} of {}", begin, count, cols);
    Tensor t = *this;
    if (!empty()) t.data += static_cast<std::size_t>(begin) * size_of(dtype);
    t.cols = count;
    return t;
  }
};

/// A contiguous (rows, cols) tensor over existing memory.
template <class T>
Tensor make_tensor(T* data, int64_t rows, int64_t cols) {
  return {reinterpret_cast<std::byte*>(data), rows, cols, cols, dtype_of<T>()};
}

}  // namespace red
