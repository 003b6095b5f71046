#include "base/stop_signal.hpp"

#include <csignal>
#include <ctime>
#include <initializer_list>

#include "base/signal_stack.hpp"

namespace red {
namespace {

constexpr time_t kSameRequestSeconds = 3;

volatile std::sig_atomic_t received = 0;
volatile time_t received_at = 0;

extern "C" void remember_signal(int signal) {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  if (received == 0) {
    received = signal;
    received_at = now.tv_sec;
  } else if (signal != SIGUSR1 && now.tv_sec - received_at > kSameRequestSeconds) {
    std::signal(signal, SIG_DFL);
    std::raise(signal);
  }
}

}  // namespace

void catch_stop_signals() {
  use_signal_stack();
  struct sigaction action = {};
  action.sa_handler = remember_signal;
  action.sa_flags = SA_RESTART | SA_ONSTACK;  // files and messages do not notice
  sigemptyset(&action.sa_mask);
  for (const int signal : {SIGTERM, SIGINT, SIGUSR1}) sigaction(signal, &action, nullptr);
}

void leave_stop_signals_to_others() {
  sigset_t signals;
  sigemptyset(&signals);
  for (const int signal : {SIGTERM, SIGINT, SIGUSR1}) sigaddset(&signals, signal);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
}

int stop_signal() {
  return received;
}

}  // namespace red
