// What stands beside attention's two passes on the CPU: delta, bound by the bytes of do and o; and the probe
// that makes some probabilities again, which is not in a hurry. Shapes: see attention.hpp.
#include <cmath>

#include "ops/attention.hpp"
#include "ops/attention_tasks.hpp"
#include "ops/row_blocks.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/attention_probe_cpu.cpp"
#include <hwy/foreach_target.h>  // compiles this file again for each target

#include "ops/exp-inl.hpp"
#include "ops/row_loops-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace red::ops {
namespace HWY_NAMESPACE {
namespace {

/// row (range.end - range.begin) <- exp(scale row - lse)
void exponentiate(float* row, int64_t n, float scale, float lse) {
  const FloatTag d;
  for_each_vector(n, [&](auto access, int64_t i) HWY_ATTR {
    const FloatVec x = hn::MulSub(access.load(d, row + i), hn::Set(d, scale), hn::Set(d, lse));
    access.store(exp_of(x), d, row + i);
  });
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace red::ops
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace red::ops {

HWY_EXPORT(dot_elements);
HWY_EXPORT(exponentiate);

void attention_delta(Stream& stream, const Tensor& delta, const Tensor& d_o, const Tensor& o,
                     const Tensor* inv_rms) {
  const int64_t num_heads = delta.rows;
  RED_CHECK(num_heads > 0 && o.cols % num_heads == 0 && delta.cols == o.rows, "delta ({}, {}) for o ({}, {})",
            delta.rows, delta.cols, o.rows, o.cols);
  check_attention_matrix(d_o, o.rows, o.cols, "do");
  check_same_dtype(o, d_o);
  // One column: the norm was over all heads together.
  const bool per_head = inv_rms != nullptr && inv_rms->cols != 1;
  if (inv_rms != nullptr) check_attention_matrix(*inv_rms, o.rows, per_head ? num_heads : 1, "inv_rms");
  const int64_t k = o.cols / num_heads;
  auto* out = delta.as<float>();
  const float* scale = inv_rms == nullptr ? nullptr : inv_rms->as<float>();
  for_row_blocks(stream, o.rows, 2 * o.cols, [&](int64_t begin, int64_t end) {
    for (int64_t token = begin; token < end; ++token) {
      for (int64_t head = 0; head < num_heads; ++head) {
        const float dot = HWY_DYNAMIC_DISPATCH(dot_elements)(o.dtype, element_at(d_o, token, head * k),
                                                             element_at(o, token, head * k), k);
        out[head * delta.row_stride + token] =
            scale == nullptr ? dot : dot / scale[token * inv_rms->row_stride + (per_head ? head : 0)];
      }
    }
  });
}

void attention_probabilities(Stream& stream, const Tensor& probabilities, const Tensor& q, const Tensor& keys,
                             const Tensor& lse, const AttentionLayout& layout, const AttentionMask& mask,
                             int64_t sequence_index, int64_t head, int64_t first_row) {
  RED_CHECK(layout.k_head_rows == 0, "the probe does not read a cache");
  check_attention_layout(layout, mask, q.rows, keys.rows);
  const int64_t k = checked_head_dim(q, layout);
  check_attention_matrix(keys, keys.rows, q.cols, "keys");
  check_same_dtype(q, keys);
  check_statistics(lse, layout, q, "lse");
  RED_CHECK(
      sequence_index >= 0 && sequence_index < layout.num_sequences && head >= 0 && head < layout.num_heads,
      "sequence {} of {}, head {} of {}", sequence_index, layout.num_sequences, head, layout.num_heads);
  const AttentionSequence sequence(layout, mask, sequence_index);
  RED_CHECK(first_row >= 0 && first_row + probabilities.rows <= sequence.num_queries() &&
                probabilities.cols == sequence.num_keys(),
            "rows {} + {} of {}, {} columns for {} keys", first_row, probabilities.rows,
            sequence.num_queries(), probabilities.cols, sequence.num_keys());
  auto* out = probabilities.as<float>();
  const float scale = 1.0F / std::sqrt(static_cast<float>(k));
  stream.parallel_for(probabilities.rows, [&](int64_t i) {
    const int64_t token = sequence.first_query() + first_row + i;
    const KeyRange range = sequence.visible(first_row + i);
    float* row = out + i * probabilities.row_stride;
    std::fill_n(row, probabilities.cols, 0.0F);
    for (int64_t j = range.begin; j < range.end; ++j) {
      row[j] = HWY_DYNAMIC_DISPATCH(dot_elements)(q.dtype, element_at(q, token, head * k),
                                                  element_at(keys, sequence.first_key() + j, head * k), k);
    }
    HWY_DYNAMIC_DISPATCH(exponentiate)
    (row + range.begin, range.end - range.begin, scale, lse.as<float>()[head * lse.row_stride + token]);
  });
}

}  // namespace red::ops
#endif  // HWY_ONCE
