// Being asked to stop: SIGTERM, SIGINT (a terminal's ^C) and SIGUSR1 (what launchers send before a job's time
// is up).
#pragma once

#include <atomic>
#include <ctime>

namespace red {

/// From now on the first of these signals is only remembered, as are others within three seconds: schedulers
/// and launchers hand one request on by several ways. A later SIGTERM or SIGINT ends the process as if nobody
/// caught it; a SIGUSR1 does not, because launch/supervise.sh repeats it so that none is lost.
/// The handler has a stack of its own (base/signal_stack). For the calling thread; threads that multiply
/// leave these signals to it.
void catch_stop_signals();
void leave_stop_signals_to_others();

/// The signal that has come; 0: none.
int stop_signal();

/// Tells the first request from later ones. Handlers of several threads may run at once, so all of it is one
/// atomic step, and a signal handler may call it.
class StopRequests {
 public:
  /// A signal has come in this second of a clock that never goes back. Whether it ends the process.
  bool ends_process(int signal, time_t second) noexcept;
  /// Of the first request; 0: none.
  int signal() const noexcept { return signal_; }

 private:
  static constexpr time_t kNever = -1;
  std::atomic<time_t> begin_{kNever};  ///< of the first
  std::atomic<int> signal_{0};
  static_assert(std::atomic<time_t>::is_always_lock_free && std::atomic<int>::is_always_lock_free);
};

}  // namespace red
