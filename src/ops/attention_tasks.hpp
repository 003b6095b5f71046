// Private to attention: how its work is cut into tasks, and the scratch memory of tasks that run at once.
#pragma once

#include <atomic>
#include <thread>

#include "ops/attention_ranges.hpp"

namespace red::ops {

/// One matrix (tokens, h k) of an attention, seen head by head.
struct HeadColumns {
  HeadColumns() = default;
  HeadColumns(const Tensor& t, int64_t width) : data(t.as<float>()), stride(t.row_stride), head_dim(width) {}
  float* at(int64_t token, int64_t head) const { return data + token * stride + head * head_dim; }

  float* data = nullptr;
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

/// Equal pieces of scratch memory, as many as tasks can run at once. A task takes one and gives it back.
class TaskScratch {
 public:
  TaskScratch(Stream& stream, int64_t num_tasks, int64_t num_floats)
      : num_(std::max<int64_t>(1, std::min<int64_t>(stream.threads().num_threads(), num_tasks))),
        taken_(stream.scratch().allocate<int32_t>(1, num_).as<int32_t>()) {
    std::fill_n(taken_, num_, 0);
    const Tensor all = stream.scratch().allocate<float>(num_, (num_floats + 15) / 16 * 16);
    data_ = all.as<float>();
    stride_ = all.row_stride;
  }

  static std::size_t num_bytes(int64_t num_pieces, int64_t num_floats) {
    const auto pieces = static_cast<std::size_t>(num_pieces);
    return Arena::rounded(pieces * sizeof(int32_t)) +
           pieces * Arena::rounded(static_cast<std::size_t>(num_floats) * sizeof(float));
  }

  class Piece {
   public:
    explicit Piece(const TaskScratch& from) : from_(from), index_(from.take()) {}
    ~Piece() { std::atomic_ref(from_.taken_[index_]).store(0, std::memory_order_release); }
    Piece(const Piece&) = delete;
    Piece& operator=(const Piece&) = delete;
    float* data() const { return from_.data_ + index_ * from_.stride_; }

   private:
    const TaskScratch& from_;
    int64_t index_;
  };

 private:
  int64_t take() const {
    for (int64_t i = 0;; i = (i + 1) % num_) {
      int32_t free = 0;
      if (std::atomic_ref(taken_[i]).compare_exchange_strong(free, 1, std::memory_order_acquire)) return i;
    }
  }

  int64_t num_;
  int32_t* taken_;
  float* data_ = nullptr;
  int64_t stride_ = 0;
};

}  // namespace red::ops
