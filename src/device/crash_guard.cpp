#include "device/crash_guard.hpp"

#include <unistd.h>

#include <atomic>
#include <cstring>

namespace red::detail {
namespace {

// What a signal handler needs must be reachable without arguments.
thread_local sigjmp_buf* escape = nullptr;
std::atomic<const char*> last_words{nullptr};

extern "C" void red_on_crash(int signal) {
  if (escape != nullptr) siglongjmp(*escape, signal);
  const char* message = last_words.load();
  if (message != nullptr) {
    [[maybe_unused]] const auto written = ::write(STDERR_FILENO, message, std::strlen(message));
  }
  ::signal(signal, SIG_DFL);
  ::raise(signal);
}

/// The handlers belong to the process.
std::mutex& handlers_mutex() {
  static std::mutex mutex;
  return mutex;
}

}  // namespace

CrashGuard::CrashGuard(const char* message) : only_one_(handlers_mutex()) {
  last_words = message;
  struct sigaction ours {};
  ours.sa_handler = red_on_crash;
  sigemptyset(&ours.sa_mask);
  for (std::size_t i = 0; i < kSignals.size(); ++i) sigaction(kSignals[i], &ours, &before_[i]);
}

CrashGuard::~CrashGuard() {
  for (std::size_t i = 0; i < kSignals.size(); ++i) sigaction(kSignals[i], &before_[i], nullptr);
  last_words = nullptr;
}

int CrashGuard::run(TaskRef body) const {
  sigjmp_buf place;
  const int signal = sigsetjmp(place, 1);
  if (signal == 0) {
    escape = &place;
    try {
      body(0);
    } catch (...) {
      escape = nullptr;
      throw;
    }
  }
  escape = nullptr;
  return signal;
}

}  // namespace red::detail
