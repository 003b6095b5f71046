// Private to attention: how its work is cut into tasks.
#pragma once

#include <thread>

#include "ops/attention_ranges.hpp"
#include "ops/rows.hpp"
#include "ops/task_scratch.hpp"

namespace red::ops {

/// Calls the stream's progress hook from inside a task, where that runs on the stream's own thread: tasks of
/// long sequences take many milliseconds.
class CallerPoll {
 public:
  explicit CallerPoll(Stream& stream) : threads_(stream.threads()), caller_(std::this_thread::get_id()) {}
  void operator()() const {
    if (std::this_thread::get_id() == caller_) threads_.call_hook();
  }

 private:
  const ThreadPool& threads_;
  std::thread::id caller_;
};

/// One matrix of an attention, fp32 or bf16, seen head by head: (tokens, h k), or with head_rows (rows, k).
struct HeadColumns {
  HeadColumns() = default;
  HeadColumns(const Tensor& t, int64_t width, int64_t head_rows = 0)
      : rows(t),
        stride(t.row_stride),
        head_dim(width),
        head_stride(head_rows > 0 ? head_rows * t.row_stride : width) {}
  /// T: the element type of the tensor.
  template <class T>
  T* at(int64_t token, int64_t head) const {
    return rows.at<T>(token, head * head_stride);
  }

  Rows rows;
  int64_t stride = 0, head_dim = 0, head_stride = 0;
};

/// What the tasks of a forward pass have in common.
struct ForwardArgs {
  DType dtype = DType::fp32;  // of q, keys, values and o
  HeadColumns q, keys, values, o;
  float* lse = nullptr;  // (h, Tq)
  int64_t lse_stride = 0;
  float scale = 0;
  const CallerPoll* poll = nullptr;
};

/// Sequences with at most so many queries are attention_few_queries'.
constexpr int64_t kFewQueries = 4;

/// Checks that `t` holds `rows` tokens of `cols` = h k.
inline void check_attention_matrix(const Tensor& t, int64_t rows, int64_t cols, const char* name) {
  RED_CHECK(t.rows == rows && t.cols == cols, "{} ({}, {}), expected ({}, {})", name, t.rows, t.cols, rows,
            cols);
}

/// (h, Tq) statistics.
inline void check_statistics(const Tensor& t, const AttentionLayout& layout, const Tensor& q,
                             const char* name) {
  RED_CHECK(t.rows == layout.num_heads && t.cols == q.rows, "{} ({}, {}) for {} heads, {} queries", name,
            t.rows, t.cols, layout.num_heads, q.rows);
}

/// The head width k; checks q (Tq, h k).
inline int64_t checked_head_dim(const Tensor& q, const AttentionLayout& layout) {
  RED_CHECK(q.cols > 0 && q.cols % layout.num_heads == 0, "width {} for {} heads", q.cols, layout.num_heads);
  return q.cols / layout.num_heads;
}

/// The most blocks of `block` tokens that any sequence has, and at least 1 for each.
inline int64_t most_blocks(const int32_t* offsets, int64_t num_sequences, int64_t block) {
  int64_t most = 1;
  for (int64_t s = 0; s < num_sequences; ++s) {
    most = std::max<int64_t>(most, (offsets[s + 1] - offsets[s] + block - 1) / block);
  }
  return most;
}

/// Keys of one task of the backward pass.
constexpr int64_t kAttentionKeyBlock = 192;

/// Scratch memory of one task, in floats.
int64_t attention_forward_piece(int64_t head_dim);
int64_t attention_backward_piece(int64_t head_dim);

/// o and lse of the sequences with few queries.
void attention_few_queries(Stream& stream, const ForwardArgs& args, const AttentionLayout& layout,
                           const AttentionMask& mask);
std::size_t attention_few_queries_scratch_bytes(int num_threads, int64_t num_heads, int64_t head_dim,
                                                int64_t num_sequences, int64_t longest_keys);

}  // namespace red::ops
