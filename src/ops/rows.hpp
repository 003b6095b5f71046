// Private to ops: tensors of fp32 or bf16, seen from a kernel that learns at run time which of them it has.
#pragma once

#include "device/tensor.hpp"

namespace red::ops {

/// Rows of a row-major matrix.
struct Rows {
  Rows() = default;
  explicit Rows(const Tensor& t) : data(t.data), stride(t.row_stride) {}
  /// T: the element type of the tensor; its op has checked that.
  template <class T>
  T* at(int64_t row, int64_t col = 0) const {
    return reinterpret_cast<T*>(data) + row * stride + col;
  }

  std::byte* data = nullptr;
  int64_t stride = 0;
};

/// Where element (row, col) lies, of any type.
inline std::byte* element_at(const Tensor& t, int64_t row, int64_t col) {
  return t.data + (row * t.row_stride + col) * static_cast<int64_t>(size_of(t.dtype));
}

/// Whether activations and matrices may hold it.
inline bool is_element(DType dtype) {
  return dtype == DType::fp32 || dtype == DType::bf16;
}

/// Checks that the others, where there are any, hold what the first one does.
template <class... Tensors>
void check_same_dtype(const Tensor& first, const Tensors&... others) {
  const auto check = [&](const Tensor& t) {
    RED_CHECK(t.empty() || t.dtype == first.dtype, "{} and {} in one op", name_of(first.dtype),
              name_of(t.dtype));
  };
  (check(others), ...);
}

}  // namespace red::ops
