// The one thread of a process that writes checkpoints behind training. It runs a job at a time, makes no MPI
// call, and is the only one that uses HDF5 while it is busy.
#pragma once

#include <chrono>
#include <exception>
#include <functional>
#include <memory>
#include <thread>

namespace red::checkpoint {

class IoThread {
 public:
  IoThread();
  /// Waits for the job, for a few seconds at most: a thread that hangs in a system call is left behind, with
  /// all that its job owns.
  ~IoThread();
  IoThread(const IoThread&) = delete;
  IoThread& operator=(const IoThread&) = delete;

  /// Begins a job; none may be running. The job must own what it uses.
  void start(std::function<void()> job);
  bool busy() const;
  /// Waits until idle or so long.
  void wait_for(std::chrono::milliseconds patience) const;
  /// What the last job threw, until the next one begins; idle only.
  std::exception_ptr error() const;

 private:
  struct State;
  std::shared_ptr<State> state_;
  std::thread thread_;
};

}  // namespace red::checkpoint
