// Private to device: a call into a library that may die of an illegal instruction or a bad access.
#pragma once

#include <array>
#include <csetjmp>
#include <csignal>
#include <mutex>

#include "base/thread_pool.hpp"

namespace red::detail {

/// While one lives, SIGILL, SIGSEGV, SIGBUS and SIGFPE of this thread inside run() end the call instead of
/// the program; outside run() and on other threads they print `message` and end the program as before. A
/// second one waits until the first is gone, so a thread must not hold two.
///
/// A forked child would be the cleaner judge, but fork is unsafe once MPI runs. What died must not be called
/// again: it may hold locks and half-written state.
class CrashGuard {
 public:
  /// message: outlives the guard.
  explicit CrashGuard(const char* message);
  ~CrashGuard();
  CrashGuard(const CrashGuard&) = delete;
  CrashGuard& operator=(const CrashGuard&) = delete;

  /// Calls body(0): 0, or the signal it died of. Objects with destructors must not live in the frames it
  /// leaves in a hurry.
  int run(TaskRef body) const;

 private:
  static constexpr std::array kSignals = {SIGILL, SIGSEGV, SIGBUS, SIGFPE};
  std::unique_lock<std::mutex> only_one_;
  std::array<struct sigaction, kSignals.size()> before_{};
};

}  // namespace red::detail
