// What the ways to compute attention's forward pass share: the online softmax of a row of scores, and the end
// of a block. Included once per CPU target.
#if defined(RED_OPS_ATTENTION_SOFTMAX_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef RED_OPS_ATTENTION_SOFTMAX_INL_HPP
#undef RED_OPS_ATTENTION_SOFTMAX_INL_HPP
#else
#define RED_OPS_ATTENTION_SOFTMAX_INL_HPP
#endif

#include <algorithm>
#include <cmath>
#include <limits>

#include "ops/attention_tasks.hpp"
#include "ops/exp-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace red::ops {
namespace HWY_NAMESPACE {

/// The state of a block's rows: largest score so far, and the denominator relative to it.
struct ForwardRows {
  KeyRange visible[kAttentionQueryBlock];
  float max[kAttentionQueryBlock], denominator[kAttentionQueryBlock];
};

/// A tile of keys, and its part of a row's range, counted from the tile's first key.
struct KeyTile {
  int32_t first, count;
  KeyRange part(KeyRange range) const {
    const int32_t begin = std::clamp(range.begin - first, 0, count);
    return {begin, std::clamp(range.end - first, begin, count)};
  }
};

HWY_ATTR inline FloatVec keep_range(FloatVec v, int64_t index, KeyRange range, FloatVec other) {
  const FloatTag d;
  const FloatVec i = hn::Iota(d, static_cast<float>(index));
  const auto inside = hn::And(hn::Ge(i, hn::Set(d, static_cast<float>(range.begin))),
                              hn::Lt(i, hn::Set(d, static_cast<float>(range.end))));
  return hn::IfThenElse(inside, v, other);
}

struct RowSum {
  float max, sum;
};

/// scores <- exp(scale scores - max) in `range`, 0 elsewhere in `group`; max includes `max` from before.
template <bool kMasked>
HWY_ATTR RowSum exponentiate_row(float* scores, KeyRange range, KeyRange group, float scale, float max) {
  const FloatTag d;
  const int64_t lanes = float_lanes();
  const FloatVec lowest = hn::Set(d, std::numeric_limits<float>::lowest());
  FloatVec row_max = lowest;
  for (int64_t i = range.begin / lanes * lanes; i < range.end; i += lanes) {
    const FloatVec s = hn::Load(d, scores + i);
    row_max = hn::Max(row_max, kMasked ? keep_range(s, i, range, lowest) : s);
  }
  max = std::max(max, max_of_lanes(row_max) * scale);
  const FloatVec factor = hn::Set(d, scale), shift = hn::Set(d, max);
  FloatVec sum = hn::Zero(d);
  for (int64_t i = group.begin / lanes * lanes; i < group.end; i += lanes) {
    FloatVec p = exp_of(hn::MulSub(hn::Load(d, scores + i), factor, shift));
    if (kMasked) p = keep_range(p, i, range, hn::Zero(d));
    hn::Store(p, d, scores + i);
    sum = hn::Add(sum, p);
  }
  return {max, sum_of_lanes(sum)};
}

/// o and lse of a block from its sums.
template <class T>
HWY_ATTR void finish_block(const ForwardArgs& args, const ForwardTask& task, const float* out, int64_t stride,
                           const ForwardRows& rows) {
  const FloatTag d;
  const int64_t token = task.sequence.first_query() + task.first;
  for (int64_t i = 0; i < task.count; ++i) {
    const float denominator = rows.denominator[i];
    const bool sees = rows.visible[i].begin < rows.visible[i].end;
    const FloatVec inverse = hn::Set(d, sees ? 1.0F / denominator : 0.0F);
    T* o = args.o.at<T>(token + i, task.head);
    for_each_vector(args.o.head_dim, [&](auto access, int64_t j) HWY_ATTR {
      access.store(hn::Mul(access.load(d, out + i * stride + j), inverse), d, o + j);
    });
    args.lse[task.head * args.lse_stride + token + i] =
        sees ? rows.max[i] + std::log(denominator) : -std::numeric_limits<float>::infinity();
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace red::ops
HWY_AFTER_NAMESPACE();

#endif
