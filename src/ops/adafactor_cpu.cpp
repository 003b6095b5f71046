// Unfactored Adafactor: two passes over memory, each reading and writing every element once.
#include <cmath>

#include "ops/adafactor.hpp"
#include "ops/adafactor_step.hpp"
#include "ops/blocks.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/adafactor_cpu.cpp"
#include <hwy/foreach_target.h>

#include "ops/simd-inl.hpp"

#ifndef RED_OPS_ADAFACTOR_CPU_ONCE
#define RED_OPS_ADAFACTOR_CPU_ONCE
namespace red::ops {
namespace {

struct AccumulateFactors {
  float grad_scale, decay, one_minus_decay, epsilon;
};

}  // namespace
}  // namespace red::ops
#endif

HWY_BEFORE_NAMESPACE();
namespace red::ops {
namespace HWY_NAMESPACE {
namespace {

template <bool kWrite>
AdafactorSums accumulate(float* v, const float* g, const float* p, int64_t n,
                         const AccumulateFactors& factors) {
  const FloatTag d;
  const FloatVec scale = hn::Set(d, factors.grad_scale), epsilon = hn::Set(d, factors.epsilon);
  const FloatVec decay = hn::Set(d, factors.decay), rest = hn::Set(d, factors.one_minus_decay);
  DoubleSum u2, p2;
  for_each_vector(n, [&](auto access, int64_t i) HWY_ATTR {
    const FloatVec gradient = hn::Mul(access.load(d, g + i), scale);
    const FloatVec square = hn::Mul(gradient, gradient);
    // Behind the end of a row v is epsilon's share and g is 0: such lanes add nothing.
    const FloatVec moment = hn::MulAdd(decay, access.load(d, v + i), hn::Mul(rest, hn::Add(square, epsilon)));
    if constexpr (kWrite) access.store(moment, d, v + i);
    u2.add(hn::Div(square, moment));
    p2.add_square(access.load(d, p + i));
  });
  return {u2.total(), p2.total()};
}

AdafactorSums accumulate_row(float* v, const float* g, const float* p, int64_t n,
                             const AccumulateFactors& factors) {
  return accumulate<true>(v, g, p, n, factors);
}
AdafactorSums accumulate_row_keeping_v(float* v, const float* g, const float* p, int64_t n,
                                       const AccumulateFactors& factors) {
  return accumulate<false>(v, g, p, n, factors);
}

/// p -= step g / sqrt(v)
void apply_row(float* p, const float* g, const float* v, int64_t n, float grad_scale, float step) {
  const FloatTag d;
  const FloatVec scale = hn::Set(d, grad_scale), size = hn::Set(d, step);
  for_each_vector(n, [&](auto access, int64_t i) HWY_ATTR {
    const FloatVec u =
        hn::Div(hn::Mul(access.load(d, g + i), scale), hn::Sqrt(access.load_or(d, v + i, 1.0F)));
    access.store(hn::NegMulAdd(size, u, access.load(d, p + i)), d, p + i);
  });
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace red::ops
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace red::ops {

HWY_EXPORT(accumulate_row);
HWY_EXPORT(accumulate_row_keeping_v);
HWY_EXPORT(apply_row);

std::size_t adafactor_scratch_bytes(int64_t rows, int64_t cols) {
  return sum_rows_scratch_bytes(rows, cols);
}

void adafactor_accumulate(Stream& stream, const Tensor& v, const Tensor& g, const Tensor& p,
                          const Tensor& sum_u2, const Tensor& sum_p2, const AdafactorScalars& scalars,
                          const AdafactorRule& rule) {
  check_same_shape(v, g);
  check_same_shape(p, g);
  if (g.rows > 1 && all_contiguous({&v, &g, &p})) {
    adafactor_accumulate(stream, as_one_row(v), as_one_row(g), as_one_row(p), sum_u2, sum_p2, scalars, rule);
    return;
  }
  const double decay = value_of(scalars.decay);
  const AccumulateFactors factors{static_cast<float>(value_of(scalars.grad_scale)), static_cast<float>(decay),
                                  static_cast<float>(1.0 - decay), static_cast<float>(rule.epsilon1)};
  auto* const kernel = value_of(scalars.apply) != 0.0 ? &HWY_DYNAMIC_DISPATCH(accumulate_row)
                                                      : &HWY_DYNAMIC_DISPATCH(accumulate_row_keeping_v);
  sum_rows(stream, g, sum_u2, sum_p2, [&](int64_t row, int64_t col, int64_t n) {
    return kernel(element(v, row, col), element(g, row, col), element(p, row, col), n, factors);
  });
}

void adafactor_apply(Stream& stream, const Tensor& p, const Tensor& g, const Tensor& v, const Tensor& sum_u2,
                     const Tensor& sum_p2, int64_t num_elements, const AdafactorScalars& scalars,
                     const AdafactorRule& rule) {
  check_same_shape(v, g);
  check_same_shape(p, g);
  if (value_of(scalars.apply) == 0.0) return;
  if (g.rows > 1 && all_contiguous({&v, &g, &p})) {
    adafactor_apply(stream, as_one_row(p), as_one_row(g), as_one_row(v), sum_u2, sum_p2, num_elements,
                    scalars, rule);
    return;
  }
  const auto grad_scale = static_cast<float>(value_of(scalars.grad_scale));
  const auto step = static_cast<float>(adafactor_step_size(sum_u2, sum_p2, num_elements, scalars, rule));
  const Blocks blocks(g.rows, g.cols);
  stream.parallel_for(blocks.count(), [&](int64_t i) {
    const auto [first, col, rows, cols] = blocks[i];
    for (int64_t row = first; row < first + rows; ++row) {
      HWY_DYNAMIC_DISPATCH(apply_row)
      (element(p, row, col), element(g, row, col), element(v, row, col), cols, grad_scale, step);
    }
  });
}

}  // namespace red::ops
#endif  // HWY_ONCE
