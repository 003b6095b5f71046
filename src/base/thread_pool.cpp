#include "base/thread_pool.hpp"

#include <chrono>
#include <utility>

#include "base/check.hpp"
#include "base/stop_signal.hpp"

namespace red {
namespace {

// Steps start a region every few microseconds: a short spin is cheaper than a sleep, a long one steals the
// core from another rank on a shared machine.
constexpr int kSpins = 2000;

inline void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

}  // namespace

ThreadPool::ThreadPool(int num_threads) {
  RED_CHECK(num_threads >= 1, "num_threads {}", num_threads);
  workers_.reserve(num_threads - 1);
  for (int i = 1; i < num_threads; ++i) workers_.emplace_back([this] { work(); });
}

ThreadPool::~ThreadPool() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  start_.notify_all();
}

void ThreadPool::run(int64_t num_tasks, TaskRef task) {
  if (num_tasks <= 0) return;
  if (workers_.empty() || num_tasks == 1) {
    for (int64_t i = 0; i < num_tasks; ++i) {
      task(i);
      call_hook();
    }
    return;
  }
  {
    const std::lock_guard lock(mutex_);
    task_ = &task;
    num_tasks_ = num_tasks;
    next_.store(0, std::memory_order_relaxed);
    busy_workers_ = static_cast<int>(workers_.size());
    ++generation_;
  }
  start_.notify_all();
  take_tasks(task, num_tasks, true);
  std::unique_lock lock(mutex_);
  while (busy_workers_ != 0) {
    if (!between_tasks_) {
      done_.wait(lock, [this] { return busy_workers_ == 0; });
    } else if (!done_.wait_for(lock, std::chrono::microseconds(50), [this] { return busy_workers_ == 0; })) {
      lock.unlock();
      call_hook();
      lock.lock();
    }
  }
  if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
}

void ThreadPool::take_tasks(const TaskRef& task, int64_t num_tasks, bool caller) {
  for (int64_t i = next_.fetch_add(1, std::memory_order_relaxed); i < num_tasks;
       i = next_.fetch_add(1, std::memory_order_relaxed)) {
    try {
      task(i);
    } catch (...) {
      const std::lock_guard lock(mutex_);
      if (!error_) error_ = std::current_exception();
    }
    if (caller) call_hook();
  }
}

void ThreadPool::work() {
  leave_stop_signals_to_others();
  uint64_t seen = 0;
  while (true) {
    for (int spin = 0; spin < kSpins && !stop_ && generation_ == seen; ++spin) relax();
    std::unique_lock lock(mutex_);
    start_.wait(lock, [&] { return stop_ || generation_ != seen; });
    if (stop_) return;
    seen = generation_;
    const TaskRef task = *task_;
    const int64_t num_tasks = num_tasks_;
    lock.unlock();
    take_tasks(task, num_tasks, false);
    lock.lock();
    if (--busy_workers_ == 0) done_.notify_all();
  }
}

}  // namespace red
