// Attention's forward pass on the CPU. A task is one head and a block of queries of one sequence; it goes
// over tiles of keys with an online softmax, so that a row's result depends on where key tiles begin, which
// is fixed, and on nothing else. Bound by fp32 operations: 4 k for each pair of query and key, and one
// exponential. Shapes: k head width; scores (kQueryTile, kKeyTile) row-major; panels:
// attention_tiles-inl.hpp.
#include <algorithm>
#include <cmath>

#include "ops/attention.hpp"
#include "ops/attention_tasks.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/attention_forward_cpu.cpp"
#include <hwy/foreach_target.h>  // compiles this file again for each target

#include "ops/attention_softmax-inl.hpp"
#include "ops/attention_tiles-inl.hpp"

#ifndef RED_OPS_ATTENTION_FORWARD_ARGS
#define RED_OPS_ATTENTION_FORWARD_ARGS
namespace red::ops {
namespace {

// kQueryBlock / 2 and kQueryTile are multiples of every kMr. One tile of keys and values and the scores fit
// an L2 cache of 512 KiB at k = 128; a block's queries and outputs pass through it.
constexpr int64_t kQueryBlock = kAttentionQueryBlock, kQueryTile = 60, kKeyTile = 192;
constexpr int64_t kScoreStride = kKeyTile + 16;  // not a power of two: rows fall into different cache sets

}  // namespace
}  // namespace red::ops
#endif

HWY_BEFORE_NAMESPACE();
namespace red::ops {
namespace HWY_NAMESPACE {
namespace {

/// Where things lie in a task's scratch memory, in floats.
struct ForwardScratch {
  explicit ForwardScratch(int64_t head_dim) : padded_dim(round_up(head_dim, kNr)) {
    out = queries + kQueryBlock * padded_dim;
    keys = out + kQueryBlock * padded_dim;
    values = keys + head_dim * round_up(kKeyTile, kNr);
    values = round_up(values, 16);
    scores = values + kKeyTile * padded_dim;
    total = scores + kQueryTile * kScoreStride;
  }
  int64_t padded_dim;
  int64_t queries = 0;  // panels (kQueryBlock, k)
  int64_t out;          // (kQueryBlock, padded k), not yet divided by the denominator
  int64_t keys;         // panels (k, kKeyTile) of the transpose
  int64_t values;       // panels (kKeyTile, k)
  int64_t scores, total;
};

int64_t forward_scratch_size(int64_t head_dim) {
  return ForwardScratch(head_dim).total;
}

/// Rows `first` ... of a block against one tile of keys.
class ForwardTile {
 public:
  HWY_ATTR ForwardTile(const ForwardArgs& args, float* scratch, ForwardRows& rows, KeyTile tile,
                       int64_t first, int64_t count)
      : args_(args),
        at_(args.q.head_dim),
        scratch_(scratch),
        rows_(rows),
        tile_(tile),
        first_(first),
        count_(count) {
    for (int64_t g = 0; g * kMr < count; ++g) {
      const int64_t last = std::min(count, (g + 1) * kMr) - 1;
      groups_[g] = tile.part({rows.visible[first + g * kMr].begin, rows.visible[first + last].end});
    }
  }

  HWY_ATTR void run() {
    multiply_keys();
    softmax();
    multiply_values();
  }

 private:
  float* scores(int64_t row) const { return scratch_ + at_.scores + row * kScoreStride; }

  HWY_ATTR void multiply_keys() {
    const int64_t k = args_.q.head_dim;
    const float* queries = scratch_ + at_.queries + first_ * kNr;
    const float* keys = scratch_ + at_.keys;
    for (int64_t col = 0; col < tile_.count; col += kNr, keys += k * kNr) {
      for (int64_t g = 0; g * kMr < count_; ++g) {
        if (groups_[g].end <= col || groups_[g].begin >= col + kNr) continue;
        multiply_panels(scores(g * kMr) + col, kScoreStride, queries + g * kMr * kNr, kQueryBlock, keys, k);
      }
    }
  }

  HWY_ATTR void softmax() {
    const FloatTag d;
    const int64_t lanes = float_lanes();
    float sum[kQueryTile] = {};
    std::fill(std::begin(rescale_), std::end(rescale_), 0.0F);
    for (int64_t i = 0; i < count_; ++i) {
      const KeyRange range = tile_.part(rows_.visible[first_ + i]), group = groups_[i / kMr];
      if (range.begin == range.end) {
        std::fill(scores(i) + group.begin, scores(i) + group.end, 0.0F);
        continue;
      }
      float& max = rows_.max[first_ + i];
      const bool whole = range.begin == 0 && range.end == tile_.count && tile_.count % lanes == 0;
      const RowSum row = whole ? exponentiate_row<false>(scores(i), range, group, args_.scale, max)
                               : exponentiate_row<true>(scores(i), range, group, args_.scale, max);
      rescale_[i] = max - row.max;
      max = row.max;
      sum[i] = row.sum;
    }
    for (int64_t i = 0; i < count_; i += lanes) {
      hn::StoreU(exp_of(hn::LoadU(d, rescale_ + i)), d, rescale_ + i);
    }
    for (int64_t i = 0; i < count_; ++i) {
      float& denominator = rows_.denominator[first_ + i];
      denominator = denominator * rescale_[i] + sum[i];
    }
  }

  HWY_ATTR void multiply_values() {
    const FloatTag d;
    for (int64_t col = 0; col < at_.padded_dim; col += kNr) {
      const float* values = scratch_ + at_.values + col * kKeyTile;
      for (int64_t g = 0; g * kMr < count_; ++g) {
        const KeyRange keys = groups_[g];
        if (keys.begin == keys.end) continue;
        Sums sums;
        set_zero(sums);
        accumulate<kScoreStride, 1>(sums, scores(g * kMr) + keys.begin, values + keys.begin * kNr,
                                    keys.end - keys.begin);
        const float* rescale = rescale_ + g * kMr;
        store_sums(sums, scratch_ + at_.out + (first_ + g * kMr) * at_.padded_dim + col, at_.padded_dim,
                   [&](const float* old, FloatVec sum, int64_t m)
                       HWY_ATTR { return hn::MulAdd(hn::Load(d, old), hn::Set(d, rescale[m]), sum); });
      }
    }
  }

  const ForwardArgs& args_;
  ForwardScratch at_;
  float* scratch_;
  ForwardRows& rows_;
  KeyTile tile_;
  int64_t first_, count_;
  KeyRange groups_[kQueryTile / kMr + 1];
  float rescale_[kQueryTile + hn::MaxLanes(FloatTag())];
};

template <class T>
HWY_ATTR void forward_task_of(const ForwardArgs& args, const ForwardTask& task, float* scratch) {
  const AttentionSequence& sequence = task.sequence;
  const int64_t k = args.q.head_dim;
  const ForwardScratch at(k);
  ForwardRows rows;
  sequence.visible(task.first, task.count, rows.visible);
  std::fill_n(rows.max, task.count, -std::numeric_limits<float>::infinity());
  std::fill_n(rows.denominator, task.count, 0.0F);
  pack_panels(scratch + at.queries, kQueryBlock, args.q.at<T>(sequence.first_query() + task.first, task.head),
              args.q.stride, task.count, k);
  std::fill_n(scratch + at.out, round_up(task.count, kMr) * at.padded_dim, 0.0F);

  const KeyRange hull{rows.visible[0].begin, rows.visible[task.count - 1].end};
  for (int64_t first = hull.begin / kKeyTile * kKeyTile; first < hull.end; first += kKeyTile) {
    const KeyTile tile{static_cast<int32_t>(first),
                       static_cast<int32_t>(std::min<int64_t>(kKeyTile, sequence.num_keys() - first))};
    // Ranges only move on, so the rows that see the tile follow one another.
    int64_t begin = 0, end = task.count;
    while (begin < end && rows.visible[begin].end <= tile.first) ++begin;
    while (begin < end && rows.visible[end - 1].begin >= tile.first + tile.count) --end;
    if (begin == end) continue;
    const int64_t token = sequence.first_key() + first;
    pack_transposed(scratch + at.keys, args.keys.at<T>(token, task.head), args.keys.stride, tile.count, k);
    pack_panels(scratch + at.values, kKeyTile, args.values.at<T>(token, task.head), args.values.stride,
                tile.count, k);
    for (int64_t row = begin / kMr * kMr; row < end; row += kQueryTile) {
      ForwardTile(args, scratch, rows, tile, row, std::min(kQueryTile, task.count - row)).run();
    }
    (*args.poll)();
  }
  finish_block<T>(args, task, scratch + at.out, at.padded_dim, rows);
}

void forward_task(const ForwardArgs& args, const ForwardTask& task, float* scratch) {
  with_element(args.dtype, [&](auto e) HWY_ATTR { forward_task_of<decltype(e)>(args, task, scratch); });
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace red::ops
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace red::ops {

HWY_EXPORT(forward_task);
HWY_EXPORT(forward_scratch_size);

int64_t attention_forward_piece(int64_t head_dim) {
  return std::max(HWY_DYNAMIC_DISPATCH(forward_scratch_size)(head_dim),
                  attention_forward_bf16_piece(head_dim));
}

namespace {

struct SequenceKinds {
  bool few = false, many = false;
};

SequenceKinds kinds_of_sequences(const AttentionLayout& layout) {
  SequenceKinds kinds;
  for (int64_t s = 0; s < layout.num_sequences; ++s) {
    const bool few = layout.q_offsets[s + 1] - layout.q_offsets[s] <= kFewQueries;
    (few ? kinds.few : kinds.many) = true;
  }
  return kinds;
}

/// The sequences with more than few queries.
void forward_tiled(Stream& stream, const ForwardArgs& args, const AttentionLayout& layout,
                   const AttentionMask& mask) {
  // Every block copies the keys it sees into panels, so blocks are large, unless that leaves threads idle. A
  // row's result is the same in any block. Later blocks come first: with a causal mask they are the longest.
  const int64_t heads = layout.num_sequences * layout.num_heads;
  int64_t most = kQueryBlock, blocks = most_blocks(layout.q_offsets, layout.num_sequences, most);
  if (blocks * heads < 4 * stream.threads().num_threads()) {
    most = kQueryBlock / 2;
    blocks = most_blocks(layout.q_offsets, layout.num_sequences, most);
  }
  const int64_t num_tasks = blocks * heads;
  const ArenaScope scope(stream.scratch());
  const TaskScratch scratch(stream, num_tasks, attention_forward_piece(args.q.head_dim));
  const bool by_bf16 = args.dtype == DType::bf16 && stream.gemm().has_bf16_arithmetic();
  stream.parallel_for(num_tasks, [&](int64_t i) {
    const int64_t head = i % layout.num_heads, block = blocks - 1 - i / heads;
    const AttentionSequence sequence(layout, mask, i % heads / layout.num_heads);
    if (sequence.num_queries() <= kFewQueries) return;
    // A sequence's blocks are about equally long.
    const int64_t own = (sequence.num_queries() + most - 1) / most;
    if (block >= own) return;
    const int64_t size = ((sequence.num_queries() + own - 1) / own + 11) / 12 * 12, first = block * size;
    if (first >= sequence.num_queries()) return;
    const ForwardTask task{sequence, head, first, std::min(size, sequence.num_queries() - first)};
    const TaskScratch::Piece piece(scratch);
    if (by_bf16) return attention_forward_bf16(args, task, piece.data());
    HWY_DYNAMIC_DISPATCH(forward_task)(args, task, piece.data());
  });
}

}  // namespace

void attention_forward(Stream& stream, const Tensor& o, const Tensor& lse, const Tensor& q,
                       const Tensor& keys, const Tensor& values, const AttentionLayout& layout,
                       const AttentionMask& mask) {
  check_attention_layout(layout, mask, q.rows, keys.rows);
  const int64_t k = checked_head_dim(q, layout), key_cols = layout.k_head_rows > 0 ? k : q.cols;
  check_attention_matrix(o, q.rows, q.cols, "o");
  check_attention_matrix(keys, keys.rows, key_cols, "keys");
  check_attention_matrix(values, keys.rows, key_cols, "values");
  check_statistics(lse, layout, q, "lse");
  check_same_dtype(q, keys, values, o);
  ForwardArgs args{q.dtype, {q, k}, {keys, k, layout.k_head_rows}, {values, k, layout.k_head_rows}, {o, k}};
  args.lse = lse.as<float>();
  args.lse_stride = lse.row_stride;
  args.scale = 1.0F / std::sqrt(static_cast<float>(k));
  args.amx = stream.gemm().amx;
  const CallerPoll poll(stream);
  args.poll = &poll;
  const auto [has_few, has_many] = kinds_of_sequences(layout);
  if (has_many) forward_tiled(stream, args, layout, mask);
  if (has_few) attention_few_queries(stream, args, layout, mask);
}

}  // namespace red::ops
#endif  // HWY_ONCE
