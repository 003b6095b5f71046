// Private to attention: how its work is cut into tasks.
#pragma once

#include <algorithm>
#include <atomic>
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
  bool amx = false;  // GemmLibrary::amx
  const CallerPoll* poll = nullptr;
};

/// Keys of one task of the backward pass.
constexpr int64_t kAttentionKeyBlock = 192;

/// Queries of one task of the forward pass at most.
constexpr int64_t kAttentionQueryBlock = 528;

struct ForwardTask {
  AttentionSequence sequence;
  int64_t head, first, count;  // queries of the sequence
};

struct BackwardArgs {
  DType dtype = DType::fp32;  // of the following
  HeadColumns dq, dk, dv, d_o, q, keys, values;
  HeadColumns dq_sum = {};       // (Tq, h k) fp32: dq itself, or sums that are not complete yet
  const float* lse = nullptr;    // (h, Tq)
  const float* delta = nullptr;  // (h, Tq)
  int64_t lse_stride = 0, delta_stride = 0;
  float scale = 0;
  bool amx = false;  // GemmLibrary::amx
  const CallerPoll* poll = nullptr;
};

struct BackwardTask {
  AttentionSequence sequence;
  int64_t head, block;
  int32_t* progress;  // (blocks) of this sequence and head: tiles of queries whose dq holds the block's part
};

/// The blocks of keys that see a tile of queries, by the tile's hull. A tile that sees nothing gets its zeros
/// from the first block.
struct KeyBlocks {
  explicit KeyBlocks(KeyRange hull)
      : first(hull.begin < hull.end ? hull.begin / kAttentionKeyBlock : 0),
        last(hull.begin < hull.end ? (hull.end - 1) / kAttentionKeyBlock : 0) {}
  bool contain(int64_t block) const { return first <= block && block <= last; }

  int64_t first, last;
};

/// Returns when the block before has added its part of dq to tile `tile`.
inline void wait_for_block(const BackwardTask& task, int64_t tile, const CallerPoll& poll) {
  const std::atomic_ref before(task.progress[task.block - 1]);
  for (int spins = 0; before.load(std::memory_order_acquire) <= tile; ++spins) {
    if (spins < 1000) continue;
    poll();
    std::this_thread::yield();
  }
}

/// Lets the next block add its part of dq to tile `tile`.
inline void finish_tile(const BackwardTask& task, int64_t tile) {
  std::atomic_ref(task.progress[task.block]).store(static_cast<int32_t>(tile + 1), std::memory_order_release);
}

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

/// Scratch memory of one task, in floats.
int64_t attention_forward_piece(int64_t head_dim);
int64_t attention_backward_piece(int64_t head_dim);

/// The same tasks for bf16 by the processor's own arithmetic (GemmLibrary::has_bf16_arithmetic()): products
/// of bf16 with fp32 sums, the softmax in fp32; probabilities and their gradients are rounded to bf16 for the
/// products that follow.
void attention_forward_bf16(const ForwardArgs& args, const ForwardTask& task, float* scratch);
void attention_backward_bf16(const BackwardArgs& args, const BackwardTask& task, float* scratch);
int64_t attention_forward_bf16_piece(int64_t head_dim);
int64_t attention_backward_bf16_piece(int64_t head_dim);

/// o and lse of the sequences with few queries.
void attention_few_queries(Stream& stream, const ForwardArgs& args, const AttentionLayout& layout,
                           const AttentionMask& mask);
std::size_t attention_few_queries_scratch_bytes(int num_threads, int64_t num_heads, int64_t head_dim,
                                                int64_t num_sequences, int64_t longest_keys);

}  // namespace red::ops
