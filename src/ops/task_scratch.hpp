// Private to ops: the scratch memory of tasks that run at once.
#pragma once

#include <algorithm>
#include <atomic>

#include "device/stream.hpp"

namespace red::ops {

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
