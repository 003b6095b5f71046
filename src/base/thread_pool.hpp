// A fixed team of threads that runs numbered tasks. The calling thread works too, and calls a hook between
// its tasks: that is how communication makes progress beside computation (docs/adr/0003).
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace red {

/// Non-owning reference to a callable void(int64_t): no allocation, no copy.
class TaskRef {
 public:
  template <class F>
  TaskRef(const F& f)  // NOLINT(google-explicit-constructor): a parameter type, meant to convert
      : object_(&f), call_([](const void* o, int64_t i) { (*static_cast<const F*>(o))(i); }) {}
  void operator()(int64_t i) const { call_(object_, i); }

 private:
  const void* object_;
  void (*call_)(const void*, int64_t);
};

class ThreadPool {
 public:
  /// num_threads counts the caller: 1 starts no thread.
  explicit ThreadPool(int num_threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int num_threads() const { return static_cast<int>(workers_.size()) + 1; }

  /// Runs task(0) ... task(num_tasks - 1), each once, in no order; returns when all are done. Which thread
  /// runs a task is left open, so a task's result must not depend on it. The first exception is rethrown
  /// here. Not re-entrant.
  void run(int64_t num_tasks, TaskRef task);

  /// Called on the calling thread between its tasks; must be cheap and must not throw. Empty: none.
  void set_between_tasks(std::function<void()> hook) { between_tasks_ = std::move(hook); }
  void call_hook() const {
    if (between_tasks_) between_tasks_();
  }

 private:
  void work();
  void take_tasks(const TaskRef& task, int64_t num_tasks, bool caller);

  std::function<void()> between_tasks_;
  std::mutex mutex_;
  std::condition_variable start_, done_;
  std::atomic<uint64_t> generation_{0};  ///< one more per run(); written under the mutex
  int busy_workers_ = 0;
  std::atomic<bool> stop_{false};
  const TaskRef* task_ = nullptr;
  int64_t num_tasks_ = 0;
  std::atomic<int64_t> next_{0};
  std::exception_ptr error_;
  std::vector<std::jthread> workers_;
};

}  // namespace red
