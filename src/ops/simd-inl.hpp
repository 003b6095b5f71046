// Helpers for kernels that are compiled once per CPU target (Highway). How a kernel file looks:
// elementwise_cpu.cpp. Only leaf loops over plain pointers live in the target namespace; threads, tensors and
// checks stay outside it. No #pragma once: each pass of foreach_target needs its own copy of what stands
// here.
#if defined(RED_OPS_SIMD_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef RED_OPS_SIMD_INL_HPP
#undef RED_OPS_SIMD_INL_HPP
#else
#define RED_OPS_SIMD_INL_HPP
#endif

#include <hwy/highway.h>

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "base/bf16_vectors-inl.hpp"
#include "base/check.hpp"
#include "base/dtype.hpp"

HWY_BEFORE_NAMESPACE();
namespace red::ops {
namespace HWY_NAMESPACE {  // NOLINT(readability-identifier-naming): Highway's

namespace hn = hwy::HWY_NAMESPACE;

using FloatTag = hn::ScalableTag<float>;       ///< whole vectors of fp32
using DoubleTag = hn::ScalableTag<double>;     ///< whole vectors of fp64
using HalfTag = hn::Rebind<float, DoubleTag>;  ///< as many fp32 as a whole vector has fp64
using FloatVec = hn::Vec<FloatTag>;
using DoubleVec = hn::Vec<DoubleTag>;

inline HWY_ATTR int64_t float_lanes() {
  return static_cast<int64_t>(hn::Lanes(FloatTag()));
}

// bf16 lies in memory alone: it is read as fp32 and rounded when written (base/bf16_vectors-inl.hpp).
using red::HWY_NAMESPACE::narrow;
using red::HWY_NAMESPACE::round_bits;
using red::HWY_NAMESPACE::widen;

/// v as it will be read again after it was stored as T.
template <class T>
HWY_ATTR FloatVec as_stored(FloatVec v) {
  if constexpr (std::is_same_v<T, bf16>) {
    const hn::Rebind<uint32_t, FloatTag> d32;
    return hn::BitCast(FloatTag(), hn::And(round_bits(v), hn::Set(d32, 0xFFFF0000U)));
  } else {
    return v;
  }
}

inline const uint16_t* bits_of(const bf16* p) {
  return reinterpret_cast<const uint16_t*>(p);
}
inline uint16_t* bits_of(bf16* p) {
  return reinterpret_cast<uint16_t*>(p);
}

/// How a vector is read and written: whole, or its first elements alone (the end of a row; zeros behind).
struct WholeVector {
  template <class D>
  HWY_ATTR hn::Vec<D> load(D d, const hn::TFromD<D>* p) const {
    return hn::LoadU(d, p);
  }
  template <class D>
  HWY_ATTR hn::Vec<D> load_or(D d, const hn::TFromD<D>* p, hn::TFromD<D> /*missing*/) const {
    return hn::LoadU(d, p);
  }
  template <class D>
  HWY_ATTR void store(hn::Vec<D> v, D d, hn::TFromD<D>* p) const {
    hn::StoreU(v, d, p);
  }
  template <class D>
  HWY_ATTR hn::Vec<D> load(D d, const bf16* p) const {
    return widen(d, hn::LoadU(hn::Rebind<uint16_t, D>(), bits_of(p)));
  }
  HWY_ATTR void store(FloatVec v, FloatTag /*d*/, bf16* p) const {
    hn::StoreU(narrow(v), hn::Rebind<uint16_t, FloatTag>(), bits_of(p));
  }
};

struct FirstElements {
  int64_t count;  ///< less than a whole vector

  template <class D>
  HWY_ATTR hn::Vec<D> load(D d, const hn::TFromD<D>* p) const {
    return load_or(d, p, hn::TFromD<D>{0});
  }
  /// `missing` in the lanes behind the last element.
  template <class D>
  HWY_ATTR hn::Vec<D> load_or(D d, const hn::TFromD<D>* p, hn::TFromD<D> missing) const {
    HWY_ALIGN hn::TFromD<D> lanes[hn::MaxLanes(D())];
    hn::Store(hn::Set(d, missing), d, lanes);
    std::memcpy(lanes, p, static_cast<size_t>(count) * sizeof(*p));
    return hn::Load(d, lanes);
  }
  template <class D>
  HWY_ATTR void store(hn::Vec<D> v, D d, hn::TFromD<D>* p) const {
    HWY_ALIGN hn::TFromD<D> lanes[hn::MaxLanes(D())];
    hn::Store(v, d, lanes);
    std::memcpy(p, lanes, static_cast<size_t>(count) * sizeof(*p));
  }
  template <class D>
  HWY_ATTR hn::Vec<D> load(D d, const bf16* p) const {
    return widen(d, load(hn::Rebind<uint16_t, D>(), bits_of(p)));
  }
  HWY_ATTR void store(FloatVec v, FloatTag /*d*/, bf16* p) const {
    store(narrow(v), hn::Rebind<uint16_t, FloatTag>(), bits_of(p));
  }
};

/// body(access, i) for i = 0, lanes, 2 lanes, ... below n, with the lanes of D: with WholeVector, and once at
/// the end with FirstElements where n is no multiple. body: `[&](auto access, int64_t i) HWY_ATTR { ... }`.
template <class D, class Body>
HWY_ATTR void for_each_vector(D d, int64_t n, const Body& body) {
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) body(WholeVector(), i);
  if (i < n) body(FirstElements{n - i}, i);
}
/// The same for fp32.
template <class Body>
HWY_ATTR void for_each_vector(int64_t n, const Body& body) {
  for_each_vector(FloatTag(), n, body);
}

/// body(T()) with the element type T of activations and matrices: float or bf16.
template <class Body>
HWY_ATTR void with_element(DType dtype, const Body& body) {
  if (dtype == DType::bf16) return body(bf16());
  RED_CHECK(dtype == DType::fp32, "{} elements, fp32 or bf16 are possible", name_of(dtype));
  body(float());
}

/// Sums of fp32 values in fp64, lane by lane.
class DoubleSum {
 public:
  HWY_ATTR DoubleSum() : low_(hn::Zero(DoubleTag())), high_(hn::Zero(DoubleTag())) {}
  HWY_ATTR void add(FloatVec v) {
    const DoubleTag d;
#if HWY_TARGET == HWY_SCALAR
    low_ = hn::Add(low_, hn::PromoteTo(d, v));
#else
    low_ = hn::Add(low_, hn::PromoteTo(d, hn::LowerHalf(HalfTag(), v)));
    high_ = hn::Add(high_, hn::PromoteTo(d, hn::UpperHalf(HalfTag(), v)));
#endif
  }
  /// += v^2, squared in fp64
  HWY_ATTR void add_square(FloatVec v) {
    const DoubleTag d;
#if HWY_TARGET == HWY_SCALAR
    const DoubleVec low = hn::PromoteTo(d, v);
#else
    const DoubleVec low = hn::PromoteTo(d, hn::LowerHalf(HalfTag(), v));
    const DoubleVec high = hn::PromoteTo(d, hn::UpperHalf(HalfTag(), v));
    high_ = hn::MulAdd(high, high, high_);
#endif
    low_ = hn::MulAdd(low, low, low_);
  }
  /// In a fixed order.
  HWY_ATTR double total() const {
    return hn::GetLane(hn::SumOfLanes(DoubleTag(), hn::Add(low_, high_)));
  }

 private:
  DoubleVec low_, high_;
};

/// Sum of all lanes, in a fixed order.
inline HWY_ATTR float sum_of_lanes(FloatVec v) {
  return hn::GetLane(hn::SumOfLanes(FloatTag(), v));
}
inline HWY_ATTR float max_of_lanes(FloatVec v) {
  return hn::GetLane(hn::MaxOfLanes(FloatTag(), v));
}

}  // namespace HWY_NAMESPACE
}  // namespace red::ops
HWY_AFTER_NAMESPACE();

#endif
