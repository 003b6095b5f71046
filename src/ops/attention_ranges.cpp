#include "ops/attention_ranges.hpp"

#include "ops/attention_tasks.hpp"

namespace red::ops {
namespace {

void check_offsets(const int32_t* offsets, int64_t num_sequences, int64_t num_tokens, const char* what) {
  RED_CHECK(offsets != nullptr, "{} offsets", what);
  RED_CHECK(offsets[0] >= 0 && offsets[num_sequences] <= num_tokens, "{} offsets {} ... {} of {} tokens",
            what, offsets[0], offsets[num_sequences], num_tokens);
  RED_CHECK(std::is_sorted(offsets, offsets + num_sequences + 1), "{} offsets decrease", what);
}

void check_cached_keys(const AttentionLayout& layout, const AttentionMask& mask, int64_t num_rows) {
  RED_CHECK(layout.k_offsets != nullptr && layout.k_lengths != nullptr, "a cache without offsets or lengths");
  RED_CHECK(mask.k_documents == nullptr, "documents of cached keys");
  for (int64_t s = 0; s < layout.num_sequences; ++s) {
    const int64_t first = layout.k_offsets[s], count = layout.k_lengths[s];
    const int64_t end = first + (layout.num_heads - 1) * layout.k_head_rows + count;
    RED_CHECK(first >= 0 && count >= 0 && count <= layout.k_head_rows && end <= num_rows,
              "sequence {}: {} keys from row {} of {}, heads {} rows apart", s, count, first, num_rows,
              layout.k_head_rows);
  }
}

void check_documents(const int32_t* documents, const int32_t* offsets, int64_t num_sequences) {
  for (int64_t s = 0; s < num_sequences; ++s) {
    RED_CHECK(std::is_sorted(documents + offsets[s], documents + offsets[s + 1]),
              "document ids decrease along sequence {}", s);
  }
}

}  // namespace

void check_attention_layout(const AttentionLayout& layout, const AttentionMask& mask, int64_t num_queries,
                            int64_t num_keys) {
  RED_CHECK(layout.num_heads > 0 && layout.num_sequences >= 0, "{} heads, {} sequences", layout.num_heads,
            layout.num_sequences);
  if (layout.num_sequences == 0) return;
  check_offsets(layout.q_offsets, layout.num_sequences, num_queries, "query");
  if (layout.k_head_rows > 0) {
    check_cached_keys(layout, mask, num_keys);
  } else {
    RED_CHECK(layout.k_lengths == nullptr, "lengths of keys without a cache");
    check_offsets(layout.k_offsets, layout.num_sequences, num_keys, "key");
  }
  RED_CHECK(mask.prefix == nullptr || mask.causal, "a prefix needs the causal mask");
  RED_CHECK((mask.q_documents == nullptr) == (mask.k_documents == nullptr), "documents of one side alone");
  if (mask.q_documents == nullptr) return;
  check_documents(mask.q_documents, layout.q_offsets, layout.num_sequences);
  check_documents(mask.k_documents, layout.k_offsets, layout.num_sequences);
}

std::size_t attention_scratch_bytes(int num_threads, int64_t num_heads, int64_t head_dim,
                                    int64_t num_sequences, int64_t longest_keys, DType dtype,
                                    int64_t num_queries) {
  const int64_t blocks = std::max<int64_t>(1, (longest_keys + kAttentionKeyBlock - 1) / kAttentionKeyBlock);
  const auto progress = static_cast<std::size_t>(num_sequences * num_heads * blocks) * sizeof(int32_t);
  const int64_t piece = std::max(attention_forward_piece(head_dim), attention_backward_piece(head_dim));
  const auto dq_sum = static_cast<std::size_t>(dtype == DType::bf16 ? num_queries * num_heads * head_dim : 0);
  const std::size_t tiled = Arena::rounded(progress) + Arena::rounded(dq_sum * sizeof(float)) +
                            TaskScratch::num_bytes(num_threads, piece);
  return std::max(tiled, attention_few_queries_scratch_bytes(num_threads, num_heads, head_dim, num_sequences,
                                                             longest_keys));
}

}  // namespace red::ops
