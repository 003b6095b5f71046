// Private to attention: how its work is cut into tasks.
#pragma once

#include <thread>

#include "ops/attention_ranges.hpp"
#include "ops/rows.hpp"
#include "ops/task_scratch.hpp"

namespace red::ops {

/// One matrix (tokens, h k) of an attention, fp32 or bf16, seen head by head.
struct HeadColumns {
  HeadColumns() = default;
  HeadColumns(const Tensor& t, int64_t width) : rows(t), stride(t.row_stride), head_dim(width) {}
  /// T: the element type of the tensor.
  template <class T>
  T* at(int64_t token, int64_t head) const {
    return rows.at<T>(token, head * head_dim);
  }

  Rows rows;
  int64_t stride = 0, head_dim = 0;
};

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

/// Keys of one task of the backward pass.
constexpr int64_t kAttentionKeyBlock = 192;

/// Scratch memory of one task, in floats.
int64_t attention_forward_piece(int64_t head_dim);
int64_t attention_backward_piece(int64_t head_dim);

}  // namespace red::ops
