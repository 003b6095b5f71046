#include <algorithm>
#include <cstring>

#include "ops/blocks.hpp"
#include "ops/elementwise.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/elementwise_cpu.cpp"
#include <hwy/foreach_target.h>  // compiles this file again for each target

#include "ops/simd-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace red::ops {
namespace HWY_NAMESPACE {
namespace {

void fill_row(float* y, float value, int64_t n) {
  const FloatTag d;
  for_each_vector(n, [&](auto access, int64_t i) HWY_ATTR { access.store(hn::Set(d, value), d, y + i); });
}

void add_row(float* y, const float* a, const float* b, int64_t n) {
  const FloatTag d;
  for_each_vector(n, [&](auto access, int64_t i) HWY_ATTR {
    access.store(hn::Add(access.load(d, a + i), access.load(d, b + i)), d, y + i);
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

float* at(const Tensor& t, int64_t row, int64_t col) {
  return t.as<float>() + row * t.row_stride + col;
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
    HWY_DYNAMIC_DISPATCH(fill_row)(at(y, row, col), value, n);
  });
}

void copy(Stream& stream, const Tensor& y, const Tensor& x) {
  check_same_shape(y, x);
  RED_CHECK(y.dtype == x.dtype, "{} from {}", name_of(y.dtype), name_of(x.dtype));
  if (y.dtype == DType::fp64) {
    for (int64_t row = 0; row < y.rows; ++row) {
      std::copy_n(x.row_range(row, 1).as<double>(), y.cols, y.row_range(row, 1).as<double>());
    }
    return;
  }
  if (y.rows > 1 && all_contiguous({&y, &x})) {
    copy(stream, as_one_row(y), as_one_row(x));
    return;
  }
  for_each_row(stream, y.rows, y.cols, [&](int64_t row, int64_t col, int64_t n) {
    std::memcpy(at(y, row, col), at(x, row, col), static_cast<std::size_t>(n) * sizeof(float));
  });
}

void add(Stream& stream, const Tensor& y, const Tensor& a, const Tensor& b) {
  check_same_shape(y, a);
  check_same_shape(y, b);
  if (y.rows > 1 && all_contiguous({&y, &a, &b})) {
    add(stream, as_one_row(y), as_one_row(a), as_one_row(b));
    return;
  }
  for_each_row(stream, y.rows, y.cols, [&](int64_t row, int64_t col, int64_t n) {
    HWY_DYNAMIC_DISPATCH(add_row)(at(y, row, col), at(a, row, col), at(b, row, col), n);
  });
}

}  // namespace red::ops
#endif  // HWY_ONCE
