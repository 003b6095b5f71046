#include "parallel/reduce_blocks.hpp"

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "base/check.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "parallel/reduce_blocks.cpp"
#include <hwy/foreach_target.h>  // compiles this file again for each target

#include "base/bf16_vectors-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace red::parallel {
namespace HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

/// out = x[0] + x[1] + ... in fp32, rounded once. Plain loops over bf16 are not vectorised well: rounding
/// takes a choice, and the baseline's vectors are short.
void add_up_bf16(bf16* out, std::span<const std::byte* const> x, int64_t count) {
  const hn::ScalableTag<float> d;
  const hn::Rebind<uint16_t, decltype(d)> d16;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto bits_of = [&](std::size_t rank) { return reinterpret_cast<const uint16_t*>(x[rank]); };
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    auto sum = red::HWY_NAMESPACE::widen(d, hn::LoadU(d16, bits_of(0) + i));
    for (std::size_t rank = 1; rank < x.size(); ++rank)
      sum = hn::Add(sum, red::HWY_NAMESPACE::widen(d, hn::LoadU(d16, bits_of(rank) + i)));
    hn::StoreU(red::HWY_NAMESPACE::narrow(sum), d16, reinterpret_cast<uint16_t*>(out) + i);
  }
  for (; i < count; ++i) {
    float sum = reinterpret_cast<const bf16*>(x[0])[i];
    for (std::size_t rank = 1; rank < x.size(); ++rank) sum += reinterpret_cast<const bf16*>(x[rank])[i];
    out[i] = bf16(sum);
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace red::parallel
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace red::parallel {
namespace {

HWY_EXPORT(add_up_bf16);

/// Elements that are reduced over all ranks before the next ones: their sums stay in the first-level cache.
constexpr int64_t kChunk = 1024;

/// out[i] = f(a[i], b[i]), in Sum. Memory bound, so plain loops that the compiler vectorises are enough.
/// ivdep: out may be a or b, but no element depends on another one.
template <class Sum, class Out, class A, class B, class F>
void for_each_pair(Out* out, const A* a, const B* b, int64_t count, F f) {
#pragma GCC ivdep
  for (int64_t i = 0; i < count; ++i) out[i] = Out(f(static_cast<Sum>(a[i]), static_cast<Sum>(b[i])));
}

/// From left to right, rounded to T once.
template <class T, class Sum, class F>
void reduce_in_order(std::byte* out, std::span<const std::byte* const> x, int64_t count, F f) {
  alignas(64) Sum sums[kChunk];
  for (int64_t begin = 0; begin < count; begin += kChunk) {
    const int64_t n = std::min(kChunk, count - begin);
    const auto part = [&](std::size_t rank) { return reinterpret_cast<const T*>(x[rank]) + begin; };
    T* result = reinterpret_cast<T*>(out) + begin;
    const std::size_t last = x.size() - 1;
    if (last == 1) {
      for_each_pair<Sum>(result, part(0), part(1), n, f);
      continue;
    }
    for_each_pair<Sum>(sums, part(0), part(1), n, f);
    for (std::size_t rank = 2; rank < last; ++rank) for_each_pair<Sum>(sums, sums, part(rank), n, f);
    for_each_pair<Sum>(result, sums, part(last), n, f);
  }
}

template <class T>
bool is_nan(T x) {
  if constexpr (std::is_floating_point_v<T>) return std::isnan(x);
  return false;
}

template <class T, class Sum = T>
void reduce(ReduceOp op, std::byte* out, std::span<const std::byte* const> x, int64_t count) {
  switch (op) {
    case ReduceOp::sum:
      return reduce_in_order<T, Sum>(out, x, count, [](Sum a, Sum b) { return a + b; });
    case ReduceOp::max:
      return reduce_in_order<T, Sum>(out, x, count, [](Sum a, Sum b) { return a > b || is_nan(a) ? a : b; });
    case ReduceOp::min:
      return reduce_in_order<T, Sum>(out, x, count, [](Sum a, Sum b) { return a < b || is_nan(a) ? a : b; });
  }
}

}  // namespace

void reduce_blocks(DType dtype, ReduceOp op, std::byte* out, std::span<const std::byte* const> x,
                   int64_t count) {
  RED_CHECK(x.size() >= 2, "{} blocks", x.size());
  switch (dtype) {
    case DType::fp32:
      return reduce<float>(op, out, x, count);
    case DType::fp64:
      return reduce<double>(op, out, x, count);
    case DType::int32:
      return reduce<int32_t>(op, out, x, count);
    case DType::bf16:
      if (op == ReduceOp::sum)
        return HWY_DYNAMIC_DISPATCH(add_up_bf16)(reinterpret_cast<bf16*>(out), x, count);
      return reduce<bf16, float>(op, out, x, count);
    case DType::uint8:
      break;
  }
  RED_CHECK(false, "no arithmetic on {}", name_of(dtype));
}

}  // namespace red::parallel
#endif  // HWY_ONCE
