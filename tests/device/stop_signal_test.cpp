// Signals that come in the midst of a library's kernel: oneDNN's keep no stack where a handler could run.
#include "base/stop_signal.hpp"

#include <gtest/gtest.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <ctime>
#include <thread>
#include <vector>

#include "device/gemm_library.hpp"

namespace {
std::atomic<time_t> seconds_later{0};
std::atomic<int> signal_meanwhile{0};
}  // namespace

/// The clock of this program, which a test may put forward, and at which another signal may come.
extern "C" int clock_gettime(clockid_t clock, timespec* now) {
  if (const int signal = signal_meanwhile.exchange(0); signal != 0) std::raise(signal);
  const long result = syscall(SYS_clock_gettime, clock, now);
  now->tv_sec += seconds_later;
  return static_cast<int>(result);
}

namespace red {
namespace {

TEST(StopSignal, TheSecondRequestEndsTheProcess) {
  const auto twice = [](time_t seconds, int second) {
    catch_stop_signals();
    std::raise(SIGINT);
    seconds_later = seconds;
    std::raise(second);
    std::_Exit(stop_signal());
  };
  EXPECT_EXIT(twice(3, SIGTERM), testing::ExitedWithCode(SIGINT), "");  // one request, handed on by two ways
  EXPECT_EXIT(twice(4, SIGTERM), testing::KilledBySignal(SIGTERM), "");
  EXPECT_EXIT(twice(4, SIGUSR1), testing::ExitedWithCode(SIGINT), "");  // repeated so that none is lost
}

TEST(StopSignal, OneThatComesWithinAnotherOneIsTheSecond) {
  const auto nested = [] {
    catch_stop_signals();
    signal_meanwhile = SIGTERM;
    std::raise(SIGUSR1);
    std::_Exit(stop_signal());
  };
  EXPECT_EXIT(nested(), testing::ExitedWithCode(SIGUSR1), "");
}

TEST(StopSignal, TwoThreadsAtOnceAreOneRequest) {
  constexpr std::size_t rounds = 20000;
  constexpr time_t now = 1000;
  std::vector<StopRequests> requests(rounds);
  std::atomic<std::size_t> arrived{0};
  std::atomic<int> ended{0};
  const auto request_all = [&](int signal) {
    for (std::size_t i = 0; i < rounds; ++i) {
      ++arrived;
      while (arrived < 2 * (i + 1)) std::this_thread::yield();
      if (requests[i].ends_process(signal, now)) ++ended;
    }
  };
  std::thread other(request_all, SIGINT);
  request_all(SIGTERM);
  other.join();
  EXPECT_EQ(ended, 0);
  for (StopRequests& request : requests) {
    EXPECT_TRUE(request.signal() == SIGINT || request.signal() == SIGTERM);
    EXPECT_TRUE(request.ends_process(SIGTERM, now + 4));
  }
}

TEST(StopSignal, DoesNotDisturbProducts) {
  constexpr int64_t n = 256;
  const std::vector<float> a(n * n, 0.5F), b(n * n, 0.25F);
  std::vector<float> c(n * n);
  catch_stop_signals();
  const pid_t self = getpid();
  for (const GemmChoice choice : {GemmChoice::onednn, GemmChoice::openblas}) {
    if (!gemm_usable(choice)) continue;
    const GemmLibrary& library = gemm_library(choice);
    std::atomic<bool> over{false};
    std::thread sender([&] {
      leave_stop_signals_to_others();
      while (!over) {
        kill(self, SIGUSR1);
        std::this_thread::sleep_for(std::chrono::microseconds(200));
      }
    });
    const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(800);
    while (std::chrono::steady_clock::now() < end) {
      library.sgemm(false, false, n, n, n, 1.0F, a.data(), n, b.data(), n, 0.0F, c.data(), n);
      ASSERT_EQ(c[n + 1], 32.0F);
    }
    over = true;
    sender.join();
    EXPECT_EQ(stop_signal(), SIGUSR1);
  }
}

}  // namespace
}  // namespace red
