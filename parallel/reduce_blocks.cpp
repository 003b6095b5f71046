#include "parallel/reduce_blocks.hpp"

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "base/check.hpp"

namespace red::parallel {
namespace {

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
      return reduce<bf16, float>(op, out, x, count);
    case DType::uint8:
      break;
  }
  RED_CHECK(false, "no arithmetic on {}", name_of(dtype));
}

}  // namespace red::parallel
