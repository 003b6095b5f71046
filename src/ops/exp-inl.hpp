// exp for fp32 vectors, 1 ulp: exp(x) = 2^n exp(r) with n = round(x / ln 2) and a polynomial of degree 6 in
// r. Made for arguments that are not positive (softmax, sigmoid): below kExpLow the result is 0, above 88 it
// is not defined. NaN gives NaN, so that a broken step is noticed. Included once per CPU target.
#if defined(RED_OPS_EXP_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef RED_OPS_EXP_INL_HPP
#undef RED_OPS_EXP_INL_HPP
#else
#define RED_OPS_EXP_INL_HPP
#endif

#include "ops/simd-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace red::ops {
namespace HWY_NAMESPACE {

constexpr float kExpLow = -87.3F;  // exp(kExpLow) is still a normal number

HWY_ATTR inline FloatVec exp_of(FloatVec x) {
  const FloatTag d;
  const hn::RebindToSigned<FloatTag> di;
  // Adding 1.5 * 2^23 rounds to an integer, which then sits in the low bits of the sum.
  const FloatVec shifter = hn::Set(d, 12582912.0F);
  const FloatVec shifted = hn::MulAdd(x, hn::Set(d, 1.44269504F), shifter);
  const FloatVec n = hn::Sub(shifted, shifter);
  // ln 2 in two parts; n times the first is exact.
  FloatVec r = hn::NegMulAdd(n, hn::Set(d, 0.693359375F), x);
  r = hn::NegMulAdd(n, hn::Set(d, -2.12194440e-4F), r);
  // (exp(r) - 1 - r) / r^2, minimax in relative error of exp: 3e-9.
  FloatVec q = hn::Set(d, 0.0013814467F);
  q = hn::MulAdd(q, r, hn::Set(d, 0.0083687808F));
  q = hn::MulAdd(q, r, hn::Set(d, 0.041668393F));
  q = hn::MulAdd(q, r, hn::Set(d, 0.1666652F));
  q = hn::MulAdd(q, r, hn::Set(d, 0.49999994F));
  const FloatVec y = hn::Add(hn::MulAdd(q, hn::Mul(r, r), r), hn::Set(d, 1.0F));
  const auto biased = hn::Add(hn::BitCast(di, shifted), hn::Set(di, 127));
  const FloatVec power = hn::BitCast(d, hn::ShiftLeft<23>(biased));
  return hn::IfThenZeroElse(hn::Lt(x, hn::Set(d, kExpLow)), hn::Mul(y, power));
}

}  // namespace HWY_NAMESPACE
}  // namespace red::ops
HWY_AFTER_NAMESPACE();

#endif
