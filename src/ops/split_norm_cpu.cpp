#include <cmath>

#include "ops/blocks.hpp"
#include "ops/row_blocks.hpp"
#include "ops/split_norm.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/split_norm_cpu.cpp"
#include <hwy/foreach_target.h>  // compiles this file again for each target

#include "ops/row_loops-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace red::ops {
namespace HWY_NAMESPACE {
namespace {

float dot(const float* a, const float* b, int64_t n) {
  return dot_row(a, b, n);
}

/// x <- (x - shift y) scale; y may be x with shift 0.
void shift_and_scale(float* x, const float* y, float shift, float scale, int64_t n) {
  const FloatTag d;
  for_each_vector(n, [&](auto access, int64_t i) HWY_ATTR {
    const auto across = hn::NegMulAdd(access.load(d, y + i), hn::Set(d, shift), access.load(d, x + i));
    access.store(hn::Mul(across, hn::Set(d, scale)), d, x + i);
  });
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace red::ops
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace red::ops {
namespace {

HWY_EXPORT(dot);
HWY_EXPORT(shift_and_scale);

float* row(const Tensor& t, int64_t i) {
  return t.as<float>() + i * t.row_stride;
}

void check_column(const Tensor& column, const Tensor& x) {
  RED_CHECK(column.rows == x.rows && column.cols == 1, "({}, {}) for {} tokens", column.rows, column.cols,
            x.rows);
}

}  // namespace

void row_dots(Stream& stream, const Tensor& dots, const Tensor& a, const Tensor& b) {
  check_same_shape(a, b);
  check_column(dots, a);
  for_row_blocks(stream, a.rows, a.cols, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      *row(dots, i) = HWY_DYNAMIC_DISPATCH(dot)(row(a, i), row(b, i), a.cols);
  });
}

void split_norm(Stream& stream, const Tensor& x, const Tensor& inv_rms, const Tensor& squares, int64_t width,
                float epsilon) {
  check_column(inv_rms, x);
  check_column(squares, x);
  for_row_blocks(stream, x.rows, x.cols, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const float inverse = 1.0F / std::sqrt(*row(squares, i) / static_cast<float>(width) + epsilon);
      *row(inv_rms, i) = inverse;
      HWY_DYNAMIC_DISPATCH(shift_and_scale)(row(x, i), row(x, i), 0.0F, inverse, x.cols);
    }
  });
}

void split_norm_backward(Stream& stream, const Tensor& dx, const Tensor& y, const Tensor& inv_rms,
                         const Tensor& dots, int64_t width) {
  check_same_shape(dx, y);
  check_column(inv_rms, dx);
  check_column(dots, dx);
  for_row_blocks(stream, dx.rows, 2 * dx.cols, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const float mean = *row(dots, i) / static_cast<float>(width);
      HWY_DYNAMIC_DISPATCH(shift_and_scale)(row(dx, i), row(y, i), mean, *row(inv_rms, i), dx.cols);
    }
  });
}

}  // namespace red::ops
#endif  // HWY_ONCE
