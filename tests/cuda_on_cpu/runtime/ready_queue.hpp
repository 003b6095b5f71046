// The threads of a block that can run, and which one does next.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>

#include "runtime/options.hpp"

namespace cuda_on_cpu {

inline constexpr unsigned kWarpSize = 32;
inline constexpr unsigned kMaxThreads = 1024;

template <class Thread>
class ReadyQueue {
 public:
  /// Empties it. priorities: of each warp, the lowest runs first; for ThreadOrder::warp.
  void reset(ThreadOrder order, const std::array<uint64_t, kMaxThreads / kWarpSize>& priorities) {
    order_ = order;
    priorities_ = priorities;
    for (auto& queue : queues_) queue.clear();
  }

  void push(Thread& thread) {
    queues_[order_ == ThreadOrder::warp ? thread.index / kWarpSize : 0].push_back(&thread);
  }

  /// Null when nobody can run.
  Thread* pop() {
    std::deque<Thread*>& queue = queues_[next_queue()];
    if (queue.empty()) return nullptr;
    Thread* next = order_ == ThreadOrder::reversed ? queue.back() : queue.front();
    order_ == ThreadOrder::reversed ? queue.pop_back() : queue.pop_front();
    return next;
  }

 private:
  std::size_t next_queue() const {
    if (order_ != ThreadOrder::warp) return 0;
    std::size_t best = 0;
    for (std::size_t i = 1; i < queues_.size(); ++i) {
      if (queues_[i].empty()) continue;
      if (queues_[best].empty() || priorities_[i] < priorities_[best]) best = i;
    }
    return best;
  }

  ThreadOrder order_ = ThreadOrder::natural;
  std::array<uint64_t, kMaxThreads / kWarpSize> priorities_{};
  std::array<std::deque<Thread*>, kMaxThreads / kWarpSize> queues_;
};

}  // namespace cuda_on_cpu
