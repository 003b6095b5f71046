#include "base/stop_signal.hpp"

#include <array>
#include <csignal>
#include <ctime>

#include "base/signal_stack.hpp"

namespace red {
namespace {

constexpr time_t kSameRequestSeconds = 3;
constexpr std::array kStopSignals = {SIGTERM, SIGINT, SIGUSR1};

sigset_t stop_signals() {
  sigset_t signals;
  sigemptyset(&signals);
  for (const int signal : kStopSignals) sigaddset(&signals, signal);
  return signals;
}

constinit StopRequests requests;

extern "C" void remember_signal(int signal) {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  if (!requests.ends_process(signal, now.tv_sec)) return;
  std::signal(signal, SIG_DFL);
  std::raise(signal);
}

}  // namespace

/// Whoever writes the time was the first; all others find it there.
bool StopRequests::ends_process(int signal, time_t second) noexcept {
  time_t begin = kNever;
  if (begin_.compare_exchange_strong(begin, second)) {
    signal_ = signal;
    return false;
  }
  return signal != SIGUSR1 && second - begin > kSameRequestSeconds;
}

void catch_stop_signals() {
  use_signal_stack();
  struct sigaction action = {};
  action.sa_handler = remember_signal;
  action.sa_flags = SA_RESTART | SA_ONSTACK;  // files and messages do not notice
  action.sa_mask = stop_signals();            // one after another, so that the first one is
  for (const int signal : kStopSignals) sigaction(signal, &action, nullptr);
}

void leave_stop_signals_to_others() {
  const sigset_t signals = stop_signals();
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
}

int stop_signal() {
  return requests.signal();
}

}  // namespace red
