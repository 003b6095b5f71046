// Attention's backward pass on the CPU, bound by fp32 operations: 10 k for each pair of query and key. A task
// is one head and one block of keys of one sequence: it goes over the queries that see the block, makes their
// probabilities again and sums dk and dv in its own memory. dq is summed over blocks in their order: a task
// adds its part to a tile of queries when the block before it has; that one is always under way. Shapes: k
// head width; probabilities, scores (kQueryTile, kKeyBlock) row-major; panels: attention_tiles-inl.hpp.
#include <algorithm>
#include <cmath>

#include "ops/attention.hpp"
#include "ops/attention_tasks.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/attention_backward_cpu.cpp"
#include <hwy/foreach_target.h>  // compiles this file again for each target

#include "ops/attention_gradients-inl.hpp"
#include "ops/attention_tiles-inl.hpp"
#include "ops/exp-inl.hpp"

#ifndef RED_OPS_ATTENTION_BACKWARD_ARGS
#define RED_OPS_ATTENTION_BACKWARD_ARGS
namespace red::ops {
namespace {

// Multiples of every kMr. All that a task keeps fits an L2 cache of 512 KiB at k = 128.
constexpr int64_t kQueryTile = 96, kKeyBlock = kAttentionKeyBlock;
constexpr int64_t kScoreStride = kKeyBlock + 16;  // no power of two: rows fall into different cache sets

}  // namespace
}  // namespace red::ops
#endif

HWY_BEFORE_NAMESPACE();
namespace red::ops {
namespace HWY_NAMESPACE {
namespace {

/// Where things lie in a task's scratch memory, in floats.
struct BackwardScratch {
  explicit BackwardScratch(int64_t head_dim) : padded_dim(round_up(head_dim, kNr)) {
    values_t = keys_t + round_up(head_dim * round_up(kKeyBlock, kNr), 16);
    keys = values_t + round_up(head_dim * round_up(kKeyBlock, kNr), 16);
    dk = keys + kKeyBlock * padded_dim;
    dv = dk + kKeyBlock * padded_dim;
    queries = dv + kKeyBlock * padded_dim;
    d_o = queries + kQueryTile * padded_dim;
    dq = d_o + kQueryTile * padded_dim;
    probabilities = dq + kQueryTile * padded_dim;
    scores = probabilities + kQueryTile * kScoreStride;
    total = scores + kQueryTile * kScoreStride;
  }
  int64_t padded_dim;
  int64_t keys_t = 0, values_t;   // panels (k, kKeyBlock) of the transposes
  int64_t keys;                   // panels (kKeyBlock, k)
  int64_t dk, dv;                 // (kKeyBlock, padded k)
  int64_t queries, d_o;           // panels (kQueryTile, k)
  int64_t dq;                     // (kQueryTile, padded k)
  int64_t probabilities, scores;  // scores holds d(probabilities), then d(scores)
  int64_t total;
};

int64_t backward_scratch_size(int64_t head_dim) {
  return BackwardScratch(head_dim).total;
}

/// One tile of queries against the task's block of keys.
class BackwardTile {
 public:
  HWY_ATTR BackwardTile(const BackwardArgs& args, const BackwardTask& task, float* scratch,
                        int64_t first_query)
      : args_(args),
        task_(task),
        at_(args.q.head_dim),
        scratch_(scratch),
        first_key_(task.block * kKeyBlock),
        num_keys_(std::min<int64_t>(kKeyBlock, task.sequence.num_keys() - first_key_)),
        count_(std::min<int64_t>(kQueryTile, task.sequence.num_queries() - first_query)),
        token_(task.sequence.first_query() + first_query) {
    for (int64_t i = 0; i < count_; ++i) {
      const KeyRange range = task.sequence.visible(first_query + i);
      const auto first = static_cast<int32_t>(first_key_), count = static_cast<int32_t>(num_keys_);
      const int32_t begin = std::clamp(range.begin - first, 0, count);
      rows_[i] = {begin, std::clamp(range.end - first, begin, count)};
    }
    for (int64_t g = 0; g * kMr < count_; ++g) {
      groups_[g] = {rows_[g * kMr].begin, rows_[std::min(count_, (g + 1) * kMr) - 1].end};
    }
  }

  template <class T>
  HWY_ATTR void pack() {
    const int64_t k = args_.q.head_dim;
    pack_panels(scratch_ + at_.queries, kQueryTile, args_.q.at<T>(token_, task_.head), args_.q.stride, count_,
                k);
    pack_panels(scratch_ + at_.d_o, kQueryTile, args_.d_o.at<T>(token_, task_.head), args_.d_o.stride, count_,
                k);
  }

  HWY_ATTR void run() {
    multiply_transposed(at_.probabilities, at_.queries, at_.keys_t);
    multiply_transposed(at_.scores, at_.d_o, at_.values_t);
    for (int64_t i = 0; i < count_; ++i) differentiate_row(i);
    for (int64_t i = count_; i < round_up(count_, kMr); ++i) {
      std::fill_n(scratch_ + at_.scores + i * kScoreStride, num_keys_, 0.0F);
    }
    sum_over_queries(at_.dv, at_.probabilities, at_.d_o);
    sum_over_queries(at_.dk, at_.scores, at_.queries);
    sum_over_keys();
  }

  template <class T>
  HWY_ATTR void add_dq(bool first, bool last) const {
    add_query_gradients<T>(args_, task_.head, token_, count_, scratch_ + at_.dq, at_.padded_dim, first, last);
  }

 private:
  /// result (queries, keys) = a b^T, where any query of a group sees any key of a panel.
  HWY_ATTR void multiply_transposed(int64_t result, int64_t a, int64_t b) {
    const int64_t k = args_.q.head_dim;
    for (int64_t col = 0; col < num_keys_; col += kNr) {
      for (int64_t g = 0; g * kMr < count_; ++g) {
        if (groups_[g].end <= col || groups_[g].begin >= col + kNr) continue;
        multiply_panels(scratch_ + result + g * kMr * kScoreStride + col, kScoreStride,
                        scratch_ + a + g * kMr * kNr, kQueryTile, scratch_ + b + col * k, k);
      }
    }
  }

  /// probabilities: scores -> p; scores: dp -> ds = p (dp - delta) scale. Both 0 where the key is hidden.
  HWY_ATTR void differentiate_row(int64_t i) {
    const FloatTag d;
    const int64_t lanes = float_lanes();
    float* p_row = scratch_ + at_.probabilities + i * kScoreStride;
    float* ds_row = scratch_ + at_.scores + i * kScoreStride;
    const KeyRange range = rows_[i];
    const FloatVec begin = hn::Set(d, static_cast<float>(range.begin)),
                   end = hn::Set(d, static_cast<float>(range.end));
    const FloatVec scale = hn::Set(d, args_.scale);
    const FloatVec lse = hn::Set(d, args_.lse[task_.head * args_.lse_stride + token_ + i]);
    const FloatVec delta = hn::Set(d, args_.delta[task_.head * args_.delta_stride + token_ + i]);
    // Up to whole groups of keys, as sum_over_queries reads them.
    for (int64_t j = 0; j < round_up(num_keys_, kMr); j += lanes) {
      const FloatVec index = hn::Iota(d, static_cast<float>(j));
      const auto inside = hn::And(hn::Ge(index, begin), hn::Lt(index, end));
      const FloatVec p = exp_of(hn::MulSub(hn::Load(d, p_row + j), scale, lse));
      const FloatVec ds = hn::Mul(hn::Mul(p, scale), hn::Sub(hn::Load(d, ds_row + j), delta));
      hn::Store(hn::IfThenElseZero(inside, p), d, p_row + j);
      hn::Store(hn::IfThenElseZero(inside, ds), d, ds_row + j);
    }
  }

  /// result (keys, k) += a^T b over the tile's queries, with a (queries, keys) and b panels (queries, k).
  HWY_ATTR void sum_over_queries(int64_t result, int64_t a, int64_t b) {
    const FloatTag d;
    for (int64_t key = 0; key < num_keys_; key += kMr) {
      // The queries that see any of these keys follow one another.
      int64_t begin = 0, end = count_;
      while (begin < end && rows_[begin].end <= key) ++begin;
      while (begin < end && rows_[end - 1].begin >= key + kMr) --end;
      if (begin == end) continue;
      for (int64_t col = 0; col < at_.padded_dim; col += kNr) {
        Sums sums;
        set_zero(sums);
        accumulate<1, kScoreStride>(sums, scratch_ + a + begin * kScoreStride + key,
                                    scratch_ + b + col * kQueryTile + begin * kNr, end - begin);
        store_sums(sums, scratch_ + result + key * at_.padded_dim + col, at_.padded_dim,
                   [&](const float* old, FloatVec sum, int64_t)
                       HWY_ATTR { return hn::Add(hn::Load(d, old), sum); });
      }
    }
  }

  /// dq (queries, k) = ds k
  HWY_ATTR void sum_over_keys() {
    for (int64_t col = 0; col < at_.padded_dim; col += kNr) {
      for (int64_t g = 0; g * kMr < count_; ++g) {
        Sums sums;
        set_zero(sums);
        const KeyRange keys = groups_[g];
        accumulate<kScoreStride, 1>(sums, scratch_ + at_.scores + g * kMr * kScoreStride + keys.begin,
                                    scratch_ + at_.keys + col * kKeyBlock + keys.begin * kNr,
                                    keys.end - keys.begin);
        store_sums(sums, scratch_ + at_.dq + g * kMr * at_.padded_dim + col, at_.padded_dim,
                   [](const float*, FloatVec sum, int64_t) HWY_ATTR { return sum; });
      }
    }
  }

  const BackwardArgs& args_;
  const BackwardTask& task_;
  BackwardScratch at_;
  float* scratch_;
  int64_t first_key_, num_keys_, count_, token_;
  KeyRange rows_[kQueryTile];              // keys that a row sees, counted from the block's first
  KeyRange groups_[kQueryTile / kMr + 1];  // the same for kMr rows together
};

template <class T>
HWY_ATTR void backward_task_of(const BackwardArgs& args, const BackwardTask& task, float* scratch) {
  const AttentionSequence& sequence = task.sequence;
  const int64_t k = args.q.head_dim, first = task.block * kKeyBlock;
  const int64_t num_keys = std::min<int64_t>(kKeyBlock, sequence.num_keys() - first);
  const int64_t token = sequence.first_key() + first;
  const BackwardScratch at(k);
  pack_transposed(scratch + at.keys_t, args.keys.at<T>(token, task.head), args.keys.stride, num_keys, k);
  pack_transposed(scratch + at.values_t, args.values.at<T>(token, task.head), args.values.stride, num_keys,
                  k);
  pack_panels(scratch + at.keys, kKeyBlock, args.keys.at<T>(token, task.head), args.keys.stride, num_keys, k);
  std::fill_n(scratch + at.dk, round_up(num_keys, kMr) * at.padded_dim, 0.0F);
  std::fill_n(scratch + at.dv, round_up(num_keys, kMr) * at.padded_dim, 0.0F);

  for (int64_t tile = 0; tile * kQueryTile < sequence.num_queries(); ++tile) {
    const int64_t query = tile * kQueryTile;
    const KeyBlocks blocks(sequence.hull(query, std::min(kQueryTile, sequence.num_queries() - query)));
    if (!blocks.contain(task.block)) continue;
    BackwardTile work(args, task, scratch, query);
    work.pack<T>();
    work.run();
    if (task.block > blocks.first) wait_for_block(task, tile, *args.poll);
    work.add_dq<T>(task.block == blocks.first, task.block == blocks.last);
    finish_tile(task, tile);
    (*args.poll)();
  }
  store_block<T>(args.dk, token, task.head, scratch + at.dk, at.padded_dim, num_keys);
  store_block<T>(args.dv, token, task.head, scratch + at.dv, at.padded_dim, num_keys);
}

void backward_task(const BackwardArgs& args, const BackwardTask& task, float* scratch) {
  with_element(args.dtype, [&](auto e) HWY_ATTR { backward_task_of<decltype(e)>(args, task, scratch); });
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace red::ops
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace red::ops {

HWY_EXPORT(backward_task);
HWY_EXPORT(backward_scratch_size);

int64_t attention_backward_piece(int64_t head_dim) {
  return std::max(HWY_DYNAMIC_DISPATCH(backward_scratch_size)(head_dim),
                  attention_backward_bf16_piece(head_dim));
}

void attention_backward(Stream& stream, const Tensor& dq, const Tensor& dk, const Tensor& dv,
                        const Tensor& d_o, const Tensor& delta, const Tensor& q, const Tensor& keys,
                        const Tensor& values, const Tensor& lse, const AttentionLayout& layout,
                        const AttentionMask& mask, const AttentionOutput&) {
  RED_CHECK(layout.k_head_rows == 0, "keys in a cache have no gradients");
  check_attention_layout(layout, mask, q.rows, keys.rows);
  const int64_t k = checked_head_dim(q, layout);
  check_attention_matrix(dq, q.rows, q.cols, "dq");
  check_attention_matrix(d_o, q.rows, q.cols, "do");
  check_attention_matrix(keys, keys.rows, q.cols, "keys");
  check_attention_matrix(values, keys.rows, q.cols, "values");
  check_attention_matrix(dk, keys.rows, q.cols, "dk");
  check_attention_matrix(dv, keys.rows, q.cols, "dv");
  check_statistics(lse, layout, q, "lse");
  check_statistics(delta, layout, q, "delta");
  check_same_dtype(q, keys, values, d_o, dq, dk, dv);
  const ArenaScope scope(stream.scratch());
  BackwardArgs args{q.dtype, {dq, k}, {dk, k}, {dv, k}, {d_o, k}, {q, k}, {keys, k}, {values, k}};
  // Parts of dq are added up before they are rounded.
  args.dq_sum = {q.dtype == DType::fp32 ? dq : stream.scratch().allocate(q.rows, q.cols), k};
  args.lse = lse.as<float>();
  args.delta = delta.as<float>();
  args.lse_stride = lse.row_stride;
  args.delta_stride = delta.row_stride;
  args.scale = 1.0F / std::sqrt(static_cast<float>(k));
  args.amx = stream.gemm().amx;
  const CallerPoll poll(stream);
  args.poll = &poll;

  // All first blocks, then all second blocks, ...: blocks of one head rarely wait for each other, and with a
  // causal mask the longest come first. A sequence without keys still has one block, for its zeros in dq.
  const int64_t blocks = most_blocks(layout.k_offsets, layout.num_sequences, kKeyBlock);
  const int64_t heads = layout.num_sequences * layout.num_heads, num_tasks = blocks * heads;
  auto* progress = stream.scratch().allocate<int32_t>(heads, blocks).as<int32_t>();
  std::fill_n(progress, num_tasks, 0);
  const TaskScratch scratch(stream, num_tasks, attention_backward_piece(k));
  const bool by_bf16 = q.dtype == DType::bf16 && stream.gemm().has_bf16_arithmetic();
  std::atomic<int64_t> next{0};
  stream.parallel_for(num_tasks, [&](int64_t) {
    const int64_t i = next.fetch_add(1, std::memory_order_relaxed), block = i / heads;
    const AttentionSequence sequence(layout, mask, i % heads / layout.num_heads);
    if (block > 0 && block * kKeyBlock >= sequence.num_keys()) return;
    const BackwardTask task{sequence, i % layout.num_heads, block, progress + i % heads * blocks};
    const TaskScratch::Piece piece(scratch);
    if (by_bf16) return attention_backward_bf16(args, task, piece.data());
    HWY_DYNAMIC_DISPATCH(backward_task)(args, task, piece.data());
  });
}

}  // namespace red::ops
#endif  // HWY_ONCE
