// bf16 in vectors: read as fp32 and rounded when written, as the scalar bf16 does. Highway's own conversion
// cuts digits off on x86. No #pragma once: each pass of foreach_target needs its own copy of what stands
// here.
#if defined(RED_BASE_BF16_VECTORS_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef RED_BASE_BF16_VECTORS_INL_HPP
#undef RED_BASE_BF16_VECTORS_INL_HPP
#else
#define RED_BASE_BF16_VECTORS_INL_HPP
#endif

#include <hwy/highway.h>

#include <cstdint>

HWY_BEFORE_NAMESPACE();
namespace red {
namespace HWY_NAMESPACE {  // NOLINT(readability-identifier-naming): Highway's

/// fp32 from the bits of bf16.
template <class D>
HWY_ATTR hwy::HWY_NAMESPACE::Vec<D> widen(
    D d, hwy::HWY_NAMESPACE::Vec<hwy::HWY_NAMESPACE::Rebind<uint16_t, D>> bits) {
  namespace hn = hwy::HWY_NAMESPACE;
  const hn::Rebind<uint32_t, D> d32;
  return hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(d32, bits)));
}

/// The bits of v as bf16, in the upper halves; what is below them means nothing.
template <class V>
HWY_ATTR auto round_bits(V v) {
  namespace hn = hwy::HWY_NAMESPACE;
  const hn::Rebind<uint32_t, hn::DFromV<V>> d32;
  const auto bits = hn::BitCast(d32, v);
  const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(d32, 1U));
  const auto rounded = hn::Add(bits, hn::Add(odd, hn::Set(d32, 0x7FFFU)));
  const auto quiet = hn::Or(bits, hn::Set(d32, 0x00400000U));
  return hn::IfThenElse(hn::RebindMask(d32, hn::IsNaN(v)), quiet, rounded);
}

/// The bits of v as bf16.
template <class V>
HWY_ATTR auto narrow(V v) {
  namespace hn = hwy::HWY_NAMESPACE;
  const hn::Rebind<uint16_t, hn::DFromV<V>> d16;
  const hn::Rebind<int32_t, hn::DFromV<V>> d32;
  return hn::DemoteTo(d16, hn::BitCast(d32, hn::ShiftRight<16>(round_bits(v))));
}

}  // namespace HWY_NAMESPACE
}  // namespace red
HWY_AFTER_NAMESPACE();

#endif
