#include "parallel/reduce_blocks.hpp"

#include "base/check.hpp"

namespace red::parallel {
namespace {

// Memory bound, so plain loops that the compiler vectorises are enough. ivdep: out may be a or b, but no
// element depends on another one.
template <class T, class F>
void for_each_pair(void* out, const void* a, const void* b, int64_t count, F f) {
  T* o = static_cast<T*>(out);
  const T* x = static_cast<const T*>(a);
  const T* y = static_cast<const T*>(b);
#pragma GCC ivdep
  for (int64_t i = 0; i < count; ++i) o[i] = f(x[i], y[i]);
}

template <class T>
void reduce(ReduceOp op, void* out, const void* a, const void* b, int64_t count) {
  switch (op) {
    case ReduceOp::sum:
      return for_each_pair<T>(out, a, b, count, [](T x, T y) { return x + y; });
    case ReduceOp::max:  // x != x: NaN stays
      return for_each_pair<T>(out, a, b, count, [](T x, T y) { return x > y || x != x ? x : y; });
    case ReduceOp::min:
      return for_each_pair<T>(out, a, b, count, [](T x, T y) { return x < y || x != x ? x : y; });
  }
}

}  // namespace

void reduce_blocks(DType dtype, ReduceOp op, void* out, const void* a, const void* b, int64_t count) {
  switch (dtype) {
    case DType::fp32:
      return reduce<float>(op, out, a, b, count);
    case DType::fp64:
      return reduce<double>(op, out, a, b, count);
    case DType::int32:
      return reduce<int32_t>(op, out, a, b, count);
    case DType::uint8:
      break;
  }
  RED_CHECK(false, "no arithmetic on {}", name_of(dtype));
}

}  // namespace red::parallel
