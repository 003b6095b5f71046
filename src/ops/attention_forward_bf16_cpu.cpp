// A task of attention's forward pass by the processor's bf16 arithmetic: as attention_forward_cpu.cpp cuts
// it, with groups of 32 queries against tiles of 192 keys, the products of which are done in blocks of 32.
// Bound by 4 k operations for each pair of query and key; with AMX, to which 512 of them are half a cycle, by
// what lies between: maximum, exponential, rounding. Shapes: k head width, padded to whole 32s; scores and
// probabilities (kGroup, kKeyTile) row-major; panels: device/avx512_bf16.hpp.
#include <algorithm>
#include <cmath>
#include <limits>

#include "ops/attention_tasks.hpp"
#include "ops/bf16_blocks.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/attention_forward_bf16_cpu.cpp"
#include <hwy/foreach_target.h>  // compiles this file again for each target

#include "ops/attention_softmax-inl.hpp"

#ifndef RED_OPS_ATTENTION_FORWARD_BF16
#define RED_OPS_ATTENTION_FORWARD_BF16
namespace red::ops {
namespace {

constexpr int64_t kKeyTile = 192, kGroup = 32;  // a group: queries of one block
// No powers of two: rows fall into different cache sets.
constexpr int64_t kScoreStride = kKeyTile + 16, kProbabilityStride = kKeyTile + 32;

/// A task's scratch memory; `total` counts floats.
struct ForwardBf16Scratch {
  explicit ForwardBf16Scratch(int64_t head_dim)
      : k(blocks::padded(head_dim)), query_stride(k + 32), out_stride(k + 16) {
    out = kGroup * kScoreStride;
    queries = out + kRows * out_stride;
    keys = queries + kRows * query_stride / 2;
    values = keys + kKeyTile * k / 2;
    probabilities = values + kKeyTile * k / 2;
    total = probabilities + kGroup * kProbabilityStride / 2;
  }
  static constexpr int64_t kRows = blocks::padded(kAttentionQueryBlock);
  int64_t k, query_stride, out_stride;
  int64_t scores = 0;     // fp32
  int64_t out;            // fp32 (kRows, k), not yet divided by the denominator
  int64_t queries;        // bf16 (kRows, k)
  int64_t keys;           // bf16, panels (k, kKeyTile) of the transpose
  int64_t values;         // bf16, panels (kKeyTile, k)
  int64_t probabilities;  // bf16
  int64_t total;
};

}  // namespace
}  // namespace red::ops
#endif

#if HWY_TARGET == HWY_AVX3
HWY_BEFORE_NAMESPACE();
namespace red::ops {
namespace HWY_NAMESPACE {
namespace {

/// A block's rows against tiles of keys.
class ForwardBf16 {
 public:
  HWY_ATTR ForwardBf16(const ForwardArgs& args, const ForwardTask& task, float* scratch)
      : args_(args),
        task_(task),
        at_(args.q.head_dim),
        scratch_(scratch),
        multiply_(blocks::multiply_by(args.amx)) {
    task.sequence.visible(task.first, task.count, rows_.visible);
    std::fill_n(rows_.max, task.count, -std::numeric_limits<float>::infinity());
    std::fill_n(rows_.denominator, task.count, 0.0F);
    blocks::copy(bf16_at(at_.queries), at_.query_stride,
                 args.q.at<bf16>(task.sequence.first_query() + task.first, task.head), args.q.stride,
                 task.count, args.q.head_dim);
    std::fill_n(scratch + at_.out, blocks::padded(task.count) * at_.out_stride, 0.0F);
  }

  HWY_ATTR void run() {
    const KeyRange hull{rows_.visible[0].begin, rows_.visible[task_.count - 1].end};
    for (int64_t first = hull.begin / kKeyTile * kKeyTile; first < hull.end; first += kKeyTile) {
      const KeyTile tile{static_cast<int32_t>(first), static_cast<int32_t>(std::min<int64_t>(
                                                          kKeyTile, task_.sequence.num_keys() - first))};
      // Ranges only move on, so the rows that see the tile follow one another.
      int64_t begin = 0, end = task_.count;
      while (begin < end && rows_.visible[begin].end <= tile.first) ++begin;
      while (begin < end && rows_.visible[end - 1].begin >= tile.first + tile.count) --end;
      if (begin == end) continue;
      pack(tile);
      for (int64_t row = begin / kGroup * kGroup; row < end; row += kGroup) {
        add_group(tile, row, std::min(kGroup, task_.count - row));
      }
      (*args_.poll)();
    }
    finish_block<bf16>(args_, task_, scratch_ + at_.out, at_.out_stride, rows_);
  }

 private:
  bf16* bf16_at(int64_t offset) const { return reinterpret_cast<bf16*>(scratch_ + offset); }

  HWY_ATTR void pack(KeyTile tile) {
    const int64_t token = task_.sequence.first_key() + tile.first, k = args_.q.head_dim;
    blocks::pack_transposed(bf16_at(at_.keys), args_.keys.at<bf16>(token, task_.head), args_.keys.stride, k,
                            tile.count);
    blocks::pack(bf16_at(at_.values), args_.values.at<bf16>(token, task_.head), args_.values.stride,
                 tile.count, k);
  }

  /// Adds the tile's part to the rows `first` ..., at most kGroup.
  HWY_ATTR void add_group(KeyTile tile, int64_t first, int64_t count) {
    const int64_t begin = tile.part(rows_.visible[first]).begin / kGroup * kGroup,
                  end = blocks::padded(tile.part(rows_.visible[first + count - 1]).end);
    if (begin >= end) return;
    float* scores = scratch_ + at_.scores;
    bf16* probabilities = bf16_at(at_.probabilities);
    float* out = scratch_ + at_.out + first * at_.out_stride;
    multiply_(scores + begin, kScoreStride, bf16_at(at_.queries) + first * at_.query_stride, at_.query_stride,
              {bf16_at(at_.keys) + begin * at_.k, at_.k * kGroup}, kGroup, end - begin, at_.k / kGroup,
              false);
    const KeyRange group{static_cast<int32_t>(begin), static_cast<int32_t>(end)};
    for (int64_t i = 0; i < count; ++i) {
      const float rescale =
          softmax(scores + i * kScoreStride, tile.part(rows_.visible[first + i]), group, first + i);
      if (rescale != 1.0F) scale_row(out + i * at_.out_stride, rescale);
    }
    blocks::round(probabilities + begin, kProbabilityStride, scores + begin, kScoreStride, count,
                  end - begin);
    multiply_(out, at_.out_stride, probabilities + begin, kProbabilityStride,
              {bf16_at(at_.values), blocks::padded(tile.count) * kGroup, begin / kGroup}, kGroup, at_.k,
              (end - begin) / kGroup, true);
  }

  /// Probabilities of a row relative to its new maximum; by how much what it has summed is too large.
  HWY_ATTR float softmax(float* scores, KeyRange range, KeyRange group, int64_t row) {
    if (range.begin == range.end) {
      std::fill(scores + group.begin, scores + group.end, 0.0F);
      return 1.0F;
    }
    const bool whole = range.begin == group.begin && range.end == group.end;
    const float before = rows_.max[row];
    const RowSum sum = whole ? exponentiate_row<false>(scores, range, group, args_.scale, before)
                             : exponentiate_row<true>(scores, range, group, args_.scale, before);
    const float rescale = before == sum.max ? 1.0F : std::exp(before - sum.max);
    rows_.max[row] = sum.max;
    rows_.denominator[row] = rows_.denominator[row] * rescale + sum.sum;
    return rescale;
  }

  HWY_ATTR void scale_row(float* row, float factor) const {
    const FloatTag d;
    const FloatVec f = hn::Set(d, factor);
    for (int64_t i = 0; i < at_.k; i += float_lanes())
      hn::StoreU(hn::Mul(hn::LoadU(d, row + i), f), d, row + i);
  }

  const ForwardArgs& args_;
  const ForwardTask& task_;
  ForwardBf16Scratch at_;
  float* scratch_;
  blocks::Multiply multiply_;
  ForwardRows rows_;
};

}  // namespace

void forward_bf16(const ForwardArgs& args, const ForwardTask& task, float* scratch) {
  ForwardBf16(args, task, scratch).run();
}

}  // namespace HWY_NAMESPACE
}  // namespace red::ops
HWY_AFTER_NAMESPACE();
#endif

#if HWY_ONCE
namespace red::ops {

int64_t attention_forward_bf16_piece(int64_t head_dim) {
  return ForwardBf16Scratch(head_dim).total;
}

void attention_forward_bf16(const ForwardArgs& args, const ForwardTask& task, float* scratch) {
#if HWY_TARGETS & HWY_AVX3
  N_AVX3::forward_bf16(args, task, scratch);
#else
  (void)args, (void)task, (void)scratch;
  RED_CHECK(false, "bf16 arithmetic in a program without AVX-512");
#endif
}

}  // namespace red::ops
#endif  // HWY_ONCE
