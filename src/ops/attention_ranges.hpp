// Private to attention: which keys a query sees. Every mask we have leaves one range of keys to a query, and
// along a sequence neither end of that range ever moves back; so no mask is ever stored, and whole tiles are
// known to be hidden from two numbers.
#pragma once

#include <algorithm>
#include <cstdint>

#include "ops/attention.hpp"

namespace red::ops {

/// Keys begin ... end - 1 of a sequence; none where begin == end.
struct KeyRange {
  int32_t begin = 0, end = 0;
};

/// One sequence of an attention. constexpr: kernels of a GPU ask it too.
class AttentionSequence {
 public:
  constexpr AttentionSequence(const AttentionLayout& layout, const AttentionMask& mask, int64_t sequence)
      : first_query_(layout.q_offsets[sequence]),
        num_queries_(layout.q_offsets[sequence + 1] - first_query_),
        first_key_(layout.k_offsets[sequence]),
        num_keys_(layout.k_lengths != nullptr ? layout.k_lengths[sequence]
                                              : layout.k_offsets[sequence + 1] - first_key_),
        causal_(mask.causal),
        prefix_(mask.prefix == nullptr ? 0 : mask.prefix[sequence]),
        q_documents_(mask.q_documents == nullptr ? nullptr : mask.q_documents + first_query_),
        k_documents_(mask.k_documents == nullptr ? nullptr : mask.k_documents + first_key_) {}

  constexpr int64_t first_query() const { return first_query_; }  ///< among all tokens
  constexpr int64_t num_queries() const { return num_queries_; }
  constexpr int64_t first_key() const { return first_key_; }  ///< among all rows, of the first head
  constexpr int64_t num_keys() const { return num_keys_; }

  constexpr KeyRange visible(int64_t query) const {
    KeyRange range{0, num_keys_};
    if (q_documents_ != nullptr) {
      const auto [low, high] = std::equal_range(k_documents_, k_documents_ + num_keys_, q_documents_[query]);
      range = {static_cast<int32_t>(low - k_documents_), static_cast<int32_t>(high - k_documents_)};
    }
    if (causal_) {
      const auto past =
          static_cast<int32_t>(query < prefix_ ? std::max<int64_t>(query + 1, prefix_) : query + 1);
      range.end = std::max(range.begin, std::min(range.end, past));
    }
    return range;
  }

  /// ranges (count): of the queries first ... first + count - 1
  void visible(int64_t first, int64_t count, KeyRange* ranges) const {
    for (int64_t i = 0; i < count; ++i) ranges[i] = visible(first + i);
  }

  /// The keys that queries first ... first + count - 1 see together, and what may lie between.
  KeyRange hull(int64_t first, int64_t count) const {
    return {visible(first).begin, visible(first + count - 1).end};
  }

 private:
  int32_t first_query_, num_queries_, first_key_, num_keys_;
  bool causal_;
  int32_t prefix_;
  const int32_t* q_documents_;
  const int32_t* k_documents_;
};

/// Checks what the ranges rely on: offsets and document ids that never decrease, both or no documents; keys
/// of a cache that lie inside of it.
void check_attention_layout(const AttentionLayout& layout, const AttentionMask& mask, int64_t num_queries,
                            int64_t num_keys);

}  // namespace red::ops
