// The norm of a row that several ranks share, on the CPU: row_dots reads 2 c elements a token, split_norm
// reads and writes c, its backward pass reads 2 c and writes c. Bound by bytes. Shapes: see split_norm.hpp.
#include <cmath>

#include "ops/blocks.hpp"
#include "ops/row_blocks.hpp"
#include "ops/rows.hpp"
#include "ops/split_norm.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/split_norm_cpu.cpp"
#include <hwy/foreach_target.h>  // compiles this file again for each target

#include "ops/row_loops-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace red::ops {
namespace HWY_NAMESPACE {
namespace {

/// x <- (x - shift y) scale; y may be x with shift 0.
template <class T>
HWY_ATTR void shift_and_scale_row(T* x, const T* y, float shift, float scale, int64_t n) {
  const FloatTag d;
  for_each_vector(n, [&](auto access, int64_t i) HWY_ATTR {
    const auto across = hn::NegMulAdd(access.load(d, y + i), hn::Set(d, shift), access.load(d, x + i));
    access.store(hn::Mul(across, hn::Set(d, scale)), d, x + i);
  });
}

void shift_and_scale(DType dtype, std::byte* x, const std::byte* y, float shift, float scale, int64_t n) {
  with_element(dtype, [&](auto e) HWY_ATTR {
    using T = decltype(e);
    shift_and_scale_row(reinterpret_cast<T*>(x), reinterpret_cast<const T*>(y), shift, scale, n);
  });
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace red::ops
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace red::ops {
namespace {

HWY_EXPORT(dot_elements);
HWY_EXPORT(shift_and_scale);

/// Of a column of fp32 values, one for each token.
float& value(const Tensor& column, int64_t i) {
  return column.as<float>()[i * column.row_stride];
}

void check_column(const Tensor& column, const Tensor& x) {
  RED_CHECK(column.rows == x.rows && column.cols == 1, "({}, {}) for {} tokens", column.rows, column.cols,
            x.rows);
}

}  // namespace

void row_dots(Stream& stream, const Tensor& dots, const Tensor& a, const Tensor& b) {
  check_same_shape(a, b);
  check_same_dtype(a, b);
  check_column(dots, a);
  for_row_blocks(stream, a.rows, a.cols, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      value(dots, i) =
          HWY_DYNAMIC_DISPATCH(dot_elements)(a.dtype, element_at(a, i, 0), element_at(b, i, 0), a.cols);
  });
}

void split_norm(Stream& stream, const Tensor& x, const Tensor& inv_rms, const Tensor& squares, int64_t width,
                float epsilon) {
  check_column(inv_rms, x);
  check_column(squares, x);
  for_row_blocks(stream, x.rows, x.cols, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const float inverse = 1.0F / std::sqrt(value(squares, i) / static_cast<float>(width) + epsilon);
      value(inv_rms, i) = inverse;
      std::byte* row = element_at(x, i, 0);
      HWY_DYNAMIC_DISPATCH(shift_and_scale)(x.dtype, row, row, 0.0F, inverse, x.cols);
    }
  });
}

void split_norm_backward(Stream& stream, const Tensor& dx, const Tensor& y, const Tensor& inv_rms,
                         const Tensor& dots, int64_t width) {
  check_same_shape(dx, y);
  check_same_dtype(dx, y);
  check_column(inv_rms, dx);
  check_column(dots, dx);
  for_row_blocks(stream, dx.rows, 2 * dx.cols, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const float mean = value(dots, i) / static_cast<float>(width);
      HWY_DYNAMIC_DISPATCH(shift_and_scale)
      (dx.dtype, element_at(dx, i, 0), element_at(y, i, 0), mean, value(inv_rms, i), dx.cols);
    }
  });
}

}  // namespace red::ops
#endif  // HWY_ONCE
