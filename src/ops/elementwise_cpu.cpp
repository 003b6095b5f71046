// fill, copy and add on the CPU: one pass over (rows, cols) each, bound by bytes. Contiguous tensors are one
// long row; rows are cut into blocks that threads take, and a block's row is the leaf loop.
#include <algorithm>
#include <cstring>

#include "ops/blocks.hpp"
#include "ops/convert_row.hpp"
#include "ops/elementwise.hpp"
#include "ops/rows.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/elementwise_cpu.cpp"
#include <hwy/foreach_target.h>  // compiles this file again for each target

#include "ops/simd-inl.hpp"

#ifndef RED_OPS_ELEMENTWISE_CPU_ARGS
#define RED_OPS_ELEMENTWISE_CPU_ARGS
namespace red::ops {
namespace {

/// Some elements of one row, fp32 or bf16.
struct RowPiece {
  RowPiece(const Tensor& t, int64_t row, int64_t col, int64_t n)
      : data(element_at(t, row, col)), size(n), dtype(t.dtype) {}
  template <class T>
  T* as() const {
    return reinterpret_cast<T*>(data);
  }

  std::byte* data;
  int64_t size;
  DType dtype;
};

}  // namespace
}  // namespace red::ops
#endif  // RED_OPS_ELEMENTWISE_CPU_ARGS

HWY_BEFORE_NAMESPACE();
namespace red::ops {
namespace HWY_NAMESPACE {
namespace {

template <class T>
HWY_ATTR void fill_row_of(T* y, float value, int64_t n) {
  const FloatTag d;
  for_each_vector(n, [&](auto access, int64_t i) HWY_ATTR { access.store(hn::Set(d, value), d, y + i); });
}

template <class Y, class X>
HWY_ATTR void convert_row_of(Y* y, const X* x, int64_t n) {
  const FloatTag d;
  for_each_vector(n, [&](auto access, int64_t i) HWY_ATTR { access.store(access.load(d, x + i), d, y + i); });
}

template <class T, class B>
HWY_ATTR void add_row_of(T* y, const T* a, const B* b, int64_t n) {
  const FloatTag d;
  for_each_vector(n, [&](auto access, int64_t i) HWY_ATTR {
    access.store(hn::Add(access.load(d, a + i), access.load(d, b + i)), d, y + i);
  });
}

void fill_row(const RowPiece& y, float value) {
  with_element(y.dtype, [&](auto t) HWY_ATTR { fill_row_of(y.as<decltype(t)>(), value, y.size); });
}

void widen_row(float* y, const bf16* x, int64_t n) {
  convert_row_of(y, x, n);
}

void round_row(bf16* y, const float* x, int64_t n) {
  convert_row_of(y, x, n);
}

void add_row(const RowPiece& y, const RowPiece& a, const RowPiece& b) {
  with_element(y.dtype, [&](auto t) HWY_ATTR {
    using T = decltype(t);
    with_element(b.dtype, [&](auto other) HWY_ATTR {
      add_row_of(y.as<T>(), a.as<T>(), b.as<decltype(other)>(), y.size);
    });
  });
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace red::ops
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace red::ops {

HWY_EXPORT(fill_row);
HWY_EXPORT(add_row);
HWY_EXPORT(widen_row);
HWY_EXPORT(round_row);

void convert_row(float* y, const bf16* x, int64_t n) {
  HWY_DYNAMIC_DISPATCH(widen_row)(y, x, n);
}

void convert_row(bf16* y, const float* x, int64_t n) {
  HWY_DYNAMIC_DISPATCH(round_row)(y, x, n);
}

namespace {

/// row_op(row, first column, number of columns) over all of a matrix.
template <class RowOp>
void for_each_row(Stream& stream, int64_t rows, int64_t cols, const RowOp& row_op) {
  const Blocks blocks(rows, cols);
  stream.parallel_for(blocks.count(), [&](int64_t i) {
    const Block block = blocks[i];
    for (int64_t r = block.row; r < block.row + block.rows; ++r) row_op(r, block.col, block.cols);
  });
}

void copy_piece(const RowPiece& y, const RowPiece& x) {
  if (y.dtype == x.dtype) {
    std::memcpy(y.data, x.data, static_cast<std::size_t>(y.size) * size_of(y.dtype));
  } else if (y.dtype == DType::bf16) {
    convert_row(y.as<bf16>(), x.as<float>(), y.size);
  } else {
    convert_row(y.as<float>(), x.as<bf16>(), y.size);
  }
}

}  // namespace

void fill(Stream& stream, const Tensor& tensor, float value) {
  if (tensor.dtype == DType::fp64) {  // device scalars and sums: a handful of elements
    for (int64_t row = 0; row < tensor.rows; ++row)
      std::fill_n(tensor.row_range(row, 1).as<double>(), tensor.cols, value);
    return;
  }
  const Tensor y = tensor.contiguous() ? as_one_row(tensor) : tensor;
  for_each_row(stream, y.rows, y.cols, [&](int64_t row, int64_t col, int64_t n) {
    HWY_DYNAMIC_DISPATCH(fill_row)(RowPiece(y, row, col, n), value);
  });
}

void copy(Stream& stream, const Tensor& y, const Tensor& x) {
  check_same_shape(y, x);
  if (y.dtype == DType::fp64 && x.dtype == DType::fp64) {
    for (int64_t row = 0; row < y.rows; ++row) {
      std::copy_n(x.row_range(row, 1).as<double>(), y.cols, y.row_range(row, 1).as<double>());
    }
    return;
  }
  RED_CHECK(is_element(y.dtype) && is_element(x.dtype), "{} from {}", name_of(y.dtype), name_of(x.dtype));
  if (y.rows > 1 && all_contiguous({&y, &x})) {
    copy(stream, as_one_row(y), as_one_row(x));
    return;
  }
  for_each_row(stream, y.rows, y.cols, [&](int64_t row, int64_t col, int64_t n) {
    copy_piece(RowPiece(y, row, col, n), RowPiece(x, row, col, n));
  });
}

void add(Stream& stream, const Tensor& y, const Tensor& a, const Tensor& b) {
  check_same_shape(y, a);
  check_same_shape(y, b);
  check_same_dtype(y, a);
  if (y.rows > 1 && all_contiguous({&y, &a, &b})) {
    add(stream, as_one_row(y), as_one_row(a), as_one_row(b));
    return;
  }
  for_each_row(stream, y.rows, y.cols, [&](int64_t row, int64_t col, int64_t n) {
    HWY_DYNAMIC_DISPATCH(add_row)
    (RowPiece(y, row, col, n), RowPiece(a, row, col, n), RowPiece(b, row, col, n));
  });
}

}  // namespace red::ops
#endif  // HWY_ONCE
