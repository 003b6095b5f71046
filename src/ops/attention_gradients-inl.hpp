// What the ways to compute attention's backward pass share: gradients on their way from a task's memory.
// Included once per CPU target.
#if defined(RED_OPS_ATTENTION_GRADIENTS_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef RED_OPS_ATTENTION_GRADIENTS_INL_HPP
#undef RED_OPS_ATTENTION_GRADIENTS_INL_HPP
#else
#define RED_OPS_ATTENTION_GRADIENTS_INL_HPP
#endif

#include "ops/attention_tasks.hpp"
#include "ops/simd-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace red::ops {
namespace HWY_NAMESPACE {

/// Adds a block's part of dq, (count, k) rows `stride` apart, to what the blocks before have summed for the
/// tokens `token` ...; the last one's sum is the result.
template <class T>
HWY_ATTR void add_query_gradients(const BackwardArgs& args, int64_t head, int64_t token, int64_t count,
                                  const float* dq, int64_t stride, bool first, bool last) {
  const FloatTag d;
  for (int64_t i = 0; i < count; ++i) {
    const float* from = dq + i * stride;
    float* sum = args.dq_sum.at<float>(token + i, head);
    T* result = args.dq.at<T>(token + i, head);
    for_each_vector(args.q.head_dim, [&](auto access, int64_t j) HWY_ATTR {
      FloatVec total = access.load(d, from + j);
      if (!first) total = hn::Add(access.load(d, sum + j), total);
      if (last) {
        access.store(total, d, result + j);
      } else {
        access.store(total, d, sum + j);
      }
    });
  }
}

/// dk or dv of a block.
template <class T>
HWY_ATTR void store_block(const HeadColumns& to, int64_t token, int64_t head, const float* from,
                          int64_t stride, int64_t num_keys) {
  const FloatTag d;
  for (int64_t i = 0; i < num_keys; ++i) {
    T* row = to.at<T>(token + i, head);
    for_each_vector(to.head_dim, [&](auto access, int64_t j) HWY_ATTR {
      access.store(access.load(d, from + i * stride + j), d, row + j);
    });
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace red::ops
HWY_AFTER_NAMESPACE();

#endif
