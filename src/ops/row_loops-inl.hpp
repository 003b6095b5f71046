// Sums along a row of fp32 or bf16, in fp32, on top of simd-inl.hpp. Included once per CPU target, like it.
#if defined(RED_OPS_ROW_LOOPS_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef RED_OPS_ROW_LOOPS_INL_HPP
#undef RED_OPS_ROW_LOOPS_INL_HPP
#else
#define RED_OPS_ROW_LOOPS_INL_HPP
#endif

#include "ops/simd-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace red::ops {
namespace HWY_NAMESPACE {

/// The sum of term over i < n; term(access, i, sum) returns sum + term, and its term must be 0 where what it
/// loads is 0. Four running sums hide the latency of additions. The order depends on n and the target alone.
template <class Term>
HWY_ATTR float sum_row(int64_t n, const Term& term) {
  const int64_t lanes = float_lanes();
  FloatVec s0 = hn::Zero(FloatTag()), s1 = s0, s2 = s0, s3 = s0;
  int64_t i = 0;
  for (; i + 4 * lanes <= n; i += 4 * lanes) {
    s0 = term(WholeVector(), i, s0);
    s1 = term(WholeVector(), i + lanes, s1);
    s2 = term(WholeVector(), i + 2 * lanes, s2);
    s3 = term(WholeVector(), i + 3 * lanes, s3);
  }
  for (; i + lanes <= n; i += lanes) s0 = term(WholeVector(), i, s0);
  if (i < n) s1 = term(FirstElements{n - i}, i, s1);
  return sum_of_lanes(hn::Add(hn::Add(s0, s1), hn::Add(s2, s3)));
}

/// Sum of x^2 over a row.
template <class T>
HWY_ATTR float sum_of_squares_row(const T* x, int64_t n) {
  return sum_row(n, [&](auto access, int64_t i, FloatVec sum) HWY_ATTR {
    const FloatVec v = access.load(FloatTag(), x + i);
    return hn::MulAdd(v, v, sum);
  });
}

/// Sum of a b over a row.
template <class T>
HWY_ATTR float dot_row(const T* a, const T* b, int64_t n) {
  return sum_row(n, [&](auto access, int64_t i, FloatVec sum) HWY_ATTR {
    return hn::MulAdd(access.load(FloatTag(), a + i), access.load(FloatTag(), b + i), sum);
  });
}

/// The same of elements that are fp32 or bf16.
inline HWY_ATTR float dot_elements(DType dtype, const std::byte* a, const std::byte* b, int64_t n) {
  float sum = 0.0F;
  with_element(dtype, [&](auto e) HWY_ATTR {
    using T = decltype(e);
    sum = dot_row(reinterpret_cast<const T*>(a), reinterpret_cast<const T*>(b), n);
  });
  return sum;
}

}  // namespace HWY_NAMESPACE
}  // namespace red::ops
HWY_AFTER_NAMESPACE();

#endif
