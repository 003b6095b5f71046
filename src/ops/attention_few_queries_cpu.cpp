// Attention's forward pass for sequences with few queries on the CPU: what is slow there is reading keys and
// values, so both are read once, in place. Keys are taken in blocks, each with a softmax of its own, and a
// query's blocks are put together in their order: whether they ran side by side does not matter to the bits.
// Shapes: k head width; a partial result is a row of PartialRows.
#include <cmath>
#include <limits>

#include "ops/attention.hpp"
#include "ops/attention_tasks.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/attention_few_queries_cpu.cpp"
#include <hwy/foreach_target.h>  // compiles this file again for each target

#include "ops/exp-inl.hpp"
#include "ops/row_loops-inl.hpp"

#ifndef RED_OPS_ATTENTION_FEW_QUERIES_ARGS
#define RED_OPS_ATTENTION_FEW_QUERIES_ARGS
namespace red::ops {
namespace {

constexpr int64_t kKeyBlock = 512;
// With so many pairs of sequence and head, every thread has enough without splitting their keys.
constexpr int64_t kManyPairs = 32;

/// Some of the keys of one sequence and head, for all its queries.
struct FewTask {
  AttentionSequence sequence;
  int64_t head;
  int32_t first_key;  // of kKeyBlock
};

/// What a block of keys gives each query: softmax and values relative to the block's own maximum.
class PartialRows {
 public:
  PartialRows(float* data, int64_t head_dim) : data_(data), padded_((head_dim + 15) / 16 * 16) {}
  static int64_t num_floats(int64_t head_dim) {
    return kFewQueries * PartialRows(nullptr, head_dim).stride();
  }
  float* query(int64_t i) const { return data_ + i * stride(); }  // (k) fp32
  float* out(int64_t i) const { return query(i) + padded_; }      // (k) not yet divided by `sum`
  float& max(int64_t i) const { return out(i)[padded_]; }         // -inf: no key was visible
  float& sum(int64_t i) const { return out(i)[padded_ + 1]; }

 private:
  int64_t stride() const { return 2 * padded_ + 16; }
  float* data_;
  int64_t padded_;
};

}  // namespace
}  // namespace red::ops
#endif

HWY_BEFORE_NAMESPACE();
namespace red::ops {
namespace HWY_NAMESPACE {
namespace {

constexpr int64_t kScoreRoom = kKeyBlock + static_cast<int64_t>(hn::MaxLanes(FloatTag()));

/// scores (n) = keys (n, k) query
template <class T>
HWY_ATTR void score_keys(float* scores, const float* query, const T* keys, int64_t stride, int64_t n,
                         int64_t k) {
  int64_t j = 0;
  for (; j + 4 <= n; j += 4, keys += 4 * stride) {
    FloatVec s0 = hn::Zero(FloatTag()), s1 = s0, s2 = s0, s3 = s0;
    for_each_vector(k, [&](auto access, int64_t i) HWY_ATTR {
      const FloatTag d;
      const FloatVec q = access.load(d, query + i);
      s0 = hn::MulAdd(q, access.load(d, keys + i), s0);
      s1 = hn::MulAdd(q, access.load(d, keys + stride + i), s1);
      s2 = hn::MulAdd(q, access.load(d, keys + 2 * stride + i), s2);
      s3 = hn::MulAdd(q, access.load(d, keys + 3 * stride + i), s3);
    });
    scores[j] = sum_of_lanes(s0);
    scores[j + 1] = sum_of_lanes(s1);
    scores[j + 2] = sum_of_lanes(s2);
    scores[j + 3] = sum_of_lanes(s3);
  }
  for (; j < n; ++j, keys += stride) {
    FloatVec s = hn::Zero(FloatTag());
    for_each_vector(k, [&](auto access, int64_t i) HWY_ATTR {
      s = hn::MulAdd(access.load(FloatTag(), query + i), access.load(FloatTag(), keys + i), s);
    });
    scores[j] = sum_of_lanes(s);
  }
}

/// scores <- exp(scale scores - max); returns their sum. There is room for whole vectors.
HWY_ATTR float exponentiate_scores(float* scores, int64_t n, float scale, float* max) {
  const FloatTag d;
  const int64_t lanes = float_lanes();
  const int64_t padded = (n + lanes - 1) / lanes * lanes;
  std::fill(scores + n, scores + padded, -std::numeric_limits<float>::infinity());
  FloatVec most = hn::Load(d, scores);
  for (int64_t i = lanes; i < padded; i += lanes) most = hn::Max(most, hn::Load(d, scores + i));
  *max = max_of_lanes(most) * scale;
  const FloatVec factor = hn::Set(d, scale), shift = hn::Set(d, *max);
  FloatVec sum = hn::Zero(d);
  for (int64_t i = 0; i < padded; i += lanes) {
    const FloatVec p = exp_of(hn::MulSub(hn::Load(d, scores + i), factor, shift));
    hn::Store(p, d, scores + i);
    sum = hn::Add(sum, p);
  }
  return sum_of_lanes(sum);
}

/// out (k) = weights (n) values (n, k)
template <class T>
HWY_ATTR void add_values(float* out, const float* weights, const T* values, int64_t stride, int64_t n,
                         int64_t k) {
  const FloatTag d;
  std::fill_n(out, k, 0.0F);
  int64_t j = 0;
  for (; j + 4 <= n; j += 4, values += 4 * stride) {
    const FloatVec w0 = hn::Set(d, weights[j]), w1 = hn::Set(d, weights[j + 1]);
    const FloatVec w2 = hn::Set(d, weights[j + 2]), w3 = hn::Set(d, weights[j + 3]);
    for_each_vector(k, [&](auto access, int64_t i) HWY_ATTR {
      FloatVec sum = hn::MulAdd(w0, access.load(d, values + i), access.load(d, out + i));
      sum = hn::MulAdd(w1, access.load(d, values + stride + i), sum);
      sum = hn::MulAdd(w2, access.load(d, values + 2 * stride + i), sum);
      sum = hn::MulAdd(w3, access.load(d, values + 3 * stride + i), sum);
      access.store(sum, d, out + i);
    });
  }
  for (; j < n; ++j, values += stride) {
    for_each_vector(k, [&](auto access, int64_t i) HWY_ATTR {
      access.store(hn::MulAdd(hn::Set(d, weights[j]), access.load(d, values + i), access.load(d, out + i)), d,
                   out + i);
    });
  }
}

template <class T>
HWY_ATTR void few_block_of(const ForwardArgs& args, const FewTask& task, const PartialRows& rows) {
  const AttentionSequence& sequence = task.sequence;
  const int64_t k = args.q.head_dim;
  HWY_ALIGN float scores[kScoreRoom];
  for (int64_t i = 0; i < sequence.num_queries(); ++i) {
    const KeyRange range = sequence.visible(i);
    const int32_t begin = std::max(range.begin, task.first_key);
    const int32_t end = std::min(range.end, task.first_key + static_cast<int32_t>(kKeyBlock));
    rows.max(i) = -std::numeric_limits<float>::infinity();
    rows.sum(i) = 0.0F;
    if (begin >= end) {
      std::fill_n(rows.out(i), k, 0.0F);
      continue;
    }
    const T* q = args.q.at<T>(sequence.first_query() + i, task.head);
    for_each_vector(k, [&](auto access, int64_t j) HWY_ATTR {
      access.store(access.load(FloatTag(), q + j), FloatTag(), rows.query(i) + j);
    });
    const int64_t token = sequence.first_key() + begin, count = end - begin;
    score_keys(scores, rows.query(i), args.keys.at<T>(token, task.head), args.keys.stride, count, k);
    rows.sum(i) = exponentiate_scores(scores, count, args.scale, &rows.max(i));
    add_values(rows.out(i), scores, args.values.at<T>(token, task.head), args.values.stride, count, k);
  }
}

void few_block(const ForwardArgs& args, const FewTask& task, const PartialRows& rows) {
  with_element(args.dtype, [&](auto e) HWY_ATTR { few_block_of<decltype(e)>(args, task, rows); });
}

/// state <- state and the block behind it together
HWY_ATTR void few_merge(const PartialRows& state, const PartialRows& block, int64_t num_queries, int64_t k) {
  const FloatTag d;
  for (int64_t i = 0; i < num_queries; ++i) {
    if (block.sum(i) == 0.0F) continue;
    const float max = std::max(state.max(i), block.max(i));
    const FloatVec of_state = exp_of(hn::Set(d, state.max(i) - max));
    const FloatVec of_block = exp_of(hn::Set(d, block.max(i) - max));
    float *out = state.out(i), *more = block.out(i);
    for_each_vector(k, [&](auto access, int64_t j) HWY_ATTR {
      const FloatVec old = hn::Mul(access.load(d, out + j), of_state);
      access.store(hn::MulAdd(access.load(d, more + j), of_block, old), d, out + j);
    });
    state.sum(i) = state.sum(i) * hn::GetLane(of_state) + block.sum(i) * hn::GetLane(of_block);
    state.max(i) = max;
  }
}

template <class T>
HWY_ATTR void few_finish_of(const ForwardArgs& args, const FewTask& task, const PartialRows& state) {
  const FloatTag d;
  for (int64_t i = 0; i < task.sequence.num_queries(); ++i) {
    const int64_t token = task.sequence.first_query() + i;
    const KeyRange visible = task.sequence.visible(i);
    const bool sees = visible.begin < visible.end;
    const FloatVec inverse = hn::Set(d, sees ? 1.0F / state.sum(i) : 0.0F);
    T* o = args.o.at<T>(token, task.head);
    for_each_vector(args.o.head_dim, [&](auto access, int64_t j) HWY_ATTR {
      access.store(hn::Mul(access.load(d, state.out(i) + j), inverse), d, o + j);
    });
    args.lse[task.head * args.lse_stride + token] =
        sees ? state.max(i) + std::log(state.sum(i)) : -std::numeric_limits<float>::infinity();
  }
}

void few_finish(const ForwardArgs& args, const FewTask& task, const PartialRows& state) {
  with_element(args.dtype, [&](auto e) HWY_ATTR { few_finish_of<decltype(e)>(args, task, state); });
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace red::ops
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace red::ops {

HWY_EXPORT(few_block);
HWY_EXPORT(few_merge);
HWY_EXPORT(few_finish);

namespace {

/// Blocks of a sequence's keys, at least one.
int64_t num_blocks(int64_t num_keys) {
  return std::max<int64_t>(1, (num_keys + kKeyBlock - 1) / kKeyBlock);
}

FewTask task_of(const AttentionSequence& sequence, int64_t head, int64_t block) {
  return {sequence, head, static_cast<int32_t>(block * kKeyBlock)};
}

/// Each pair of sequence and head by itself, one block of keys after another.
void by_pairs(Stream& stream, const ForwardArgs& args, const AttentionLayout& layout,
              const AttentionMask& mask) {
  const int64_t k = args.q.head_dim, pairs = layout.num_sequences * layout.num_heads;
  const int64_t size = PartialRows::num_floats(k);
  const TaskScratch scratch(stream, pairs, 2 * size);
  stream.parallel_for(pairs, [&](int64_t i) {
    const AttentionSequence sequence(layout, mask, i / layout.num_heads);
    if (sequence.num_queries() > kFewQueries) return;
    const TaskScratch::Piece piece(scratch);
    const PartialRows state(piece.data(), k), next(piece.data() + size, k);
    const int64_t head = i % layout.num_heads, blocks = num_blocks(sequence.num_keys());
    HWY_DYNAMIC_DISPATCH(few_block)(args, task_of(sequence, head, 0), state);
    for (int64_t block = 1; block < blocks; ++block) {
      HWY_DYNAMIC_DISPATCH(few_block)(args, task_of(sequence, head, block), next);
      HWY_DYNAMIC_DISPATCH(few_merge)(state, next, sequence.num_queries(), k);
      (*args.poll)();
    }
    HWY_DYNAMIC_DISPATCH(few_finish)(args, task_of(sequence, head, 0), state);
  });
}

/// All blocks of keys side by side.
void by_blocks(Stream& stream, const ForwardArgs& args, const AttentionLayout& layout,
               const AttentionMask& mask) {
  const int64_t k = args.q.head_dim, pairs = layout.num_sequences * layout.num_heads;
  int64_t most = 1;
  for (int64_t s = 0; s < layout.num_sequences; ++s)
    most = std::max(most, num_blocks(AttentionSequence(layout, mask, s).num_keys()));
  const Tensor partials = stream.scratch().allocate(pairs * most, PartialRows::num_floats(k));
  const auto partial = [&](int64_t pair, int64_t block) {
    return PartialRows(partials.as<float>() + (pair * most + block) * partials.row_stride, k);
  };
  stream.parallel_for(pairs * most, [&](int64_t i) {
    const int64_t pair = i / most, block = i % most;
    const AttentionSequence sequence(layout, mask, pair / layout.num_heads);
    if (sequence.num_queries() > kFewQueries || block >= num_blocks(sequence.num_keys())) return;
    HWY_DYNAMIC_DISPATCH(few_block)
    (args, task_of(sequence, pair % layout.num_heads, block), partial(pair, block));
  });
  stream.parallel_for(pairs, [&](int64_t pair) {
    const AttentionSequence sequence(layout, mask, pair / layout.num_heads);
    if (sequence.num_queries() > kFewQueries) return;
    const int64_t blocks = num_blocks(sequence.num_keys());
    for (int64_t block = 1; block < blocks; ++block)
      HWY_DYNAMIC_DISPATCH(few_merge)(partial(pair, 0), partial(pair, block), sequence.num_queries(), k);
    HWY_DYNAMIC_DISPATCH(few_finish)(args, task_of(sequence, pair % layout.num_heads, 0), partial(pair, 0));
  });
}

}  // namespace

void attention_few_queries(Stream& stream, const ForwardArgs& args, const AttentionLayout& layout,
                           const AttentionMask& mask) {
  const ArenaScope scope(stream.scratch());
  const bool many = layout.num_sequences * layout.num_heads >= kManyPairs;
  many ? by_pairs(stream, args, layout, mask) : by_blocks(stream, args, layout, mask);
}

std::size_t attention_few_queries_scratch_bytes(int num_threads, int64_t num_heads, int64_t head_dim,
                                                int64_t num_sequences, int64_t longest_keys) {
  const int64_t size = PartialRows::num_floats(head_dim);
  const int64_t partials = std::min(num_sequences * num_heads, kManyPairs - 1) * num_blocks(longest_keys);
  return std::max(TaskScratch::num_bytes(num_threads, 2 * size),
                  Arena::rounded(static_cast<std::size_t>(partials * size) * sizeof(float)));
}

}  // namespace red::ops
#endif  // HWY_ONCE
