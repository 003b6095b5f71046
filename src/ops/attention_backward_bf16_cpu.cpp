// A task of attention's backward pass by the processor's bf16 arithmetic: as attention_backward_cpu.cpp cuts
// it. Probabilities and their gradients are made with keys as rows, as the sums over queries (dk, dv) need
// them; for dq, the sum over keys, the gradients are transposed once more. Bound by 10 k operations for each
// pair of query and key; with AMX as much by the exponentials and roundings between. Shapes: k head width,
// padded to whole 32s; scores (kKeyBlock, kQueryTile) row-major; panels: device/avx512_bf16.hpp.
#include <algorithm>
#include <utility>

#include "ops/attention_tasks.hpp"
#include "ops/bf16_blocks.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/attention_backward_bf16_cpu.cpp"
#include <hwy/foreach_target.h>  // compiles this file again for each target

#include "ops/attention_gradients-inl.hpp"
#include "ops/exp-inl.hpp"

#ifndef RED_OPS_ATTENTION_BACKWARD_BF16
#define RED_OPS_ATTENTION_BACKWARD_BF16
namespace red::ops {
namespace {

constexpr int64_t kQueryTile = 96, kKeyBlock = kAttentionKeyBlock, kGroup = 32;
// No powers of two: rows fall into different cache sets.
constexpr int64_t kScoreStride = kQueryTile + 16, kTransposedStride = kQueryTile + 32,
                  kRowStride = kKeyBlock + 32;

/// A task's scratch memory; `total` counts floats.
struct BackwardBf16Scratch {
  explicit BackwardBf16Scratch(int64_t head_dim)
      : k(blocks::padded(head_dim)), key_stride(k + 32), sum_stride(k + 16) {
    int64_t next = 0;
    const auto take = [&](int64_t floats) { return std::exchange(next, next + floats); };
    scores = take(kKeyBlock * kScoreStride);
    d_scores = take(kKeyBlock * kScoreStride);
    dk = take(kKeyBlock * sum_stride);
    dv = take(kKeyBlock * sum_stride);
    dq = take(kQueryTile * sum_stride);
    keys = take(kKeyBlock * key_stride / 2);
    values = take(kKeyBlock * key_stride / 2);
    key_panels = take(kKeyBlock * k / 2);
    for (int64_t* panels : {&queries, &queries_t, &d_o, &d_o_t}) *panels = take(kQueryTile * k / 2);
    probabilities = take(kKeyBlock * kTransposedStride / 2);
    gradients = take(kKeyBlock * kTransposedStride / 2);
    gradient_rows = take(kQueryTile * kRowStride / 2);
    total = next;
  }
  int64_t k, key_stride, sum_stride;
  int64_t scores, d_scores;          // fp32; then probabilities, and the gradients of scores
  int64_t dk, dv, dq;                // fp32 (kKeyBlock or kQueryTile, k)
  int64_t keys, values;              // bf16 (kKeyBlock, k)
  int64_t key_panels;                // bf16, panels (kKeyBlock, k)
  int64_t queries, d_o;              // bf16, panels (kQueryTile, k)
  int64_t queries_t, d_o_t;          // bf16, panels (k, kQueryTile) of the transposes
  int64_t probabilities, gradients;  // bf16 (kKeyBlock, kQueryTile)
  int64_t gradient_rows;             // bf16 (kQueryTile, kKeyBlock)
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

/// A block of keys against tiles of queries.
class BackwardBf16 {
 public:
  HWY_ATTR BackwardBf16(const BackwardArgs& args, const BackwardTask& task, float* scratch)
      : args_(args),
        task_(task),
        at_(args.q.head_dim),
        scratch_(scratch),
        multiply_(blocks::multiply_by(args.amx)),
        first_key_(task.block * kKeyBlock),
        num_keys_(std::min<int64_t>(kKeyBlock, task.sequence.num_keys() - first_key_)),
        key_token_(task.sequence.first_key() + first_key_) {
    const int64_t k = args.q.head_dim;
    const bf16* keys = args.keys.at<bf16>(key_token_, task.head);
    blocks::copy(bf16_at(at_.keys), at_.key_stride, keys, args.keys.stride, num_keys_, k);
    blocks::copy(bf16_at(at_.values), at_.key_stride, args.values.at<bf16>(key_token_, task.head),
                 args.values.stride, num_keys_, k);
    blocks::pack(bf16_at(at_.key_panels), keys, args.keys.stride, num_keys_, k);
    std::fill_n(scratch + at_.dk, blocks::padded(num_keys_) * at_.sum_stride, 0.0F);
    std::fill_n(scratch + at_.dv, blocks::padded(num_keys_) * at_.sum_stride, 0.0F);
  }

  HWY_ATTR void run() {
    const AttentionSequence& sequence = task_.sequence;
    for (int64_t tile = 0; tile * kQueryTile < sequence.num_queries(); ++tile) {
      const int64_t query = tile * kQueryTile;
      const KeyBlocks blocks(sequence.hull(query, std::min(kQueryTile, sequence.num_queries() - query)));
      if (!blocks.contain(task_.block)) continue;
      begin_tile(query);
      for (int64_t key = 0; key < num_keys_; key += kGroup) add_keys(key);
      sum_over_keys();
      if (task_.block > blocks.first) wait_for_block(task_, tile, *args_.poll);
      add_query_gradients<bf16>(args_, task_.head, token_, count_, scratch_ + at_.dq, at_.sum_stride,
                                task_.block == blocks.first, task_.block == blocks.last);
      finish_tile(task_, tile);
      (*args_.poll)();
    }
    store_block<bf16>(args_.dk, key_token_, task_.head, scratch_ + at_.dk, at_.sum_stride, num_keys_);
    store_block<bf16>(args_.dv, key_token_, task_.head, scratch_ + at_.dv, at_.sum_stride, num_keys_);
  }

 private:
  bf16* bf16_at(int64_t offset) const { return reinterpret_cast<bf16*>(scratch_ + offset); }

  /// What is known of the queries, and their panels.
  HWY_ATTR void begin_tile(int64_t query) {
    count_ = std::min<int64_t>(kQueryTile, task_.sequence.num_queries() - query);
    token_ = task_.sequence.first_query() + query;
    const int64_t k = args_.q.head_dim;
    for (int64_t i = 0; i < kQueryTile; ++i) {
      const bool there = i < count_;
      const KeyRange range = there ? task_.sequence.visible(query + i) : KeyRange{0, 0};
      begin_[i] = static_cast<float>(std::clamp<int64_t>(range.begin - first_key_, 0, num_keys_));
      end_[i] =
          std::max(begin_[i], static_cast<float>(std::clamp<int64_t>(range.end - first_key_, 0, num_keys_)));
      lse_[i] = there ? args_.lse[task_.head * args_.lse_stride + token_ + i] : 0.0F;
      delta_[i] = there ? args_.delta[task_.head * args_.delta_stride + token_ + i] : 0.0F;
    }
    const bf16* q = args_.q.at<bf16>(token_, task_.head);
    const bf16* d_o = args_.d_o.at<bf16>(token_, task_.head);
    blocks::pack(bf16_at(at_.queries), q, args_.q.stride, count_, k);
    blocks::pack_transposed(bf16_at(at_.queries_t), q, args_.q.stride, k, count_);
    blocks::pack(bf16_at(at_.d_o), d_o, args_.d_o.stride, count_, k);
    blocks::pack_transposed(bf16_at(at_.d_o_t), d_o, args_.d_o.stride, k, count_);
  }

  /// The tile's probabilities and gradients for the keys `key` ... of the block, and their part of dk and dv.
  HWY_ATTR void add_keys(int64_t key) {
    const int64_t queries = blocks::padded(count_), k = at_.k;
    bf16* p = bf16_at(at_.probabilities) + key * kTransposedStride;
    bf16* ds = bf16_at(at_.gradients) + key * kTransposedStride;
    // The queries that see any of these keys follow one another.
    int64_t begin = 0, end = count_;
    const auto first = static_cast<float>(key), past = static_cast<float>(key + kGroup);
    while (begin < end && end_[begin] <= first) ++begin;
    while (begin < end && begin_[end - 1] >= past) --end;
    if (begin == end) {
      std::fill_n(ds, kGroup * kTransposedStride, bf16());
      return;
    }
    begin = begin / kGroup * kGroup;
    end = blocks::padded(end);
    float* scores = scratch_ + at_.scores + key * kScoreStride;
    float* d_scores = scratch_ + at_.d_scores + key * kScoreStride;
    multiply_(scores + begin, kScoreStride, bf16_at(at_.keys) + key * at_.key_stride, at_.key_stride,
              {bf16_at(at_.queries_t) + begin * k, k * kGroup}, kGroup, end - begin, k / kGroup, false);
    multiply_(d_scores + begin, kScoreStride, bf16_at(at_.values) + key * at_.key_stride, at_.key_stride,
              {bf16_at(at_.d_o_t) + begin * k, k * kGroup}, kGroup, end - begin, k / kGroup, false);
    for (int64_t i = 0; i < kGroup; ++i)
      differentiate(static_cast<float>(key + i), scores + i * kScoreStride, d_scores + i * kScoreStride,
                    queries);
    blocks::round(p, kTransposedStride, scores, kScoreStride, kGroup, queries);
    blocks::round(ds, kTransposedStride, d_scores, kScoreStride, kGroup, queries);
    multiply_(scratch_ + at_.dv + key * at_.sum_stride, at_.sum_stride, p + begin, kTransposedStride,
              {bf16_at(at_.d_o), queries * kGroup, begin / kGroup}, kGroup, k, (end - begin) / kGroup, true);
    multiply_(scratch_ + at_.dk + key * at_.sum_stride, at_.sum_stride, ds + begin, kTransposedStride,
              {bf16_at(at_.queries), queries * kGroup, begin / kGroup}, kGroup, k, (end - begin) / kGroup,
              true);
  }

  /// scores -> p; dp -> ds = p (dp - delta) scale, of one key and all queries. Both 0 where the key is
  /// hidden.
  HWY_ATTR void differentiate(float key, float* p_row, float* ds_row, int64_t queries) const {
    const FloatTag d;
    const FloatVec scale = hn::Set(d, args_.scale), index = hn::Set(d, key);
    for (int64_t i = 0; i < queries; i += float_lanes()) {
      const auto inside =
          hn::And(hn::Ge(index, hn::Load(d, begin_ + i)), hn::Lt(index, hn::Load(d, end_ + i)));
      const FloatVec p = exp_of(hn::MulSub(hn::Load(d, p_row + i), scale, hn::Load(d, lse_ + i)));
      const FloatVec ds =
          hn::Mul(hn::Mul(p, scale), hn::Sub(hn::Load(d, ds_row + i), hn::Load(d, delta_ + i)));
      hn::Store(hn::IfThenElseZero(inside, p), d, p_row + i);
      hn::Store(hn::IfThenElseZero(inside, ds), d, ds_row + i);
    }
  }

  /// dq (queries, k) = ds k
  HWY_ATTR void sum_over_keys() {
    blocks::copy_transposed(bf16_at(at_.gradient_rows), kRowStride, bf16_at(at_.gradients), kTransposedStride,
                            count_, blocks::padded(num_keys_));
    for (int64_t i = 0; i < count_; i += kGroup) {
      const int64_t last = std::min(count_, i + kGroup) - 1;
      const int64_t begin = static_cast<int64_t>(begin_[i]) / kGroup * kGroup,
                    end = blocks::padded(static_cast<int64_t>(end_[last]));
      // Without keys the sum is empty, and dq becomes 0.
      multiply_(scratch_ + at_.dq + i * at_.sum_stride, at_.sum_stride,
                bf16_at(at_.gradient_rows) + i * kRowStride + begin, kRowStride,
                {bf16_at(at_.key_panels), blocks::padded(num_keys_) * kGroup, begin / kGroup}, kGroup, at_.k,
                std::max<int64_t>(0, end - begin) / kGroup, false);
    }
  }

  const BackwardArgs& args_;
  const BackwardTask& task_;
  BackwardBf16Scratch at_;
  float* scratch_;
  blocks::Multiply multiply_;
  int64_t first_key_, num_keys_, key_token_;
  // Of the tile's queries:
  int64_t count_ = 0, token_ = 0;
  HWY_ALIGN float begin_[kQueryTile];  // keys that it sees, counted from the block's first
  HWY_ALIGN float end_[kQueryTile];
  HWY_ALIGN float lse_[kQueryTile];
  HWY_ALIGN float delta_[kQueryTile];
};

}  // namespace

void backward_bf16(const BackwardArgs& args, const BackwardTask& task, float* scratch) {
  BackwardBf16(args, task, scratch).run();
}

}  // namespace HWY_NAMESPACE
}  // namespace red::ops
HWY_AFTER_NAMESPACE();
#endif

#if HWY_ONCE
namespace red::ops {

int64_t attention_backward_bf16_piece(int64_t head_dim) {
  return BackwardBf16Scratch(head_dim).total;
}

void attention_backward_bf16(const BackwardArgs& args, const BackwardTask& task, float* scratch) {
#if HWY_TARGETS & HWY_AVX3
  N_AVX3::backward_bf16(args, task, scratch);
#else
  (void)args, (void)task, (void)scratch;
  RED_CHECK(false, "bf16 arithmetic in a program without AVX-512");
#endif
}

}  // namespace red::ops
#endif  // HWY_ONCE
