// Stacks of threads that compute, sleep in the system, or take no signals.
#include "base/stack_trace.hpp"

#include <gtest/gtest.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <future>
#include <thread>

namespace red::test {

pid_t own_id() {
  return static_cast<pid_t>(syscall(SYS_gettid));
}

std::atomic<bool> may_end{false};

// Not in the anonymous namespace: only exported functions have names in a stack.
__attribute__((noinline)) void compute_without_an_end() {
  for (std::atomic<uint64_t> turns{0}; !may_end;) ++turns;
}

__attribute__((noinline)) void wait_for_the_end(std::future<void>& end) {
  end.wait();
  may_end = true;  // so that this is no tail call
}

namespace {

class StackTraces : public testing::Test {
 protected:
  StackTraces() {
    prepare_stack_traces();
    may_end = false;
  }
};

TEST_F(StackTraces, OfAThreadThatComputes) {
  std::promise<pid_t> id;
  std::thread thread([&] {
    id.set_value(own_id());
    compute_without_an_end();
  });
  StackTrace trace;
  const pid_t thread_id = id.get_future().get();
  // It may not have got there yet.
  std::string text;
  for (int turn = 0; turn < 100 && text.find("red::test::compute_without_an_end()") == std::string::npos;
       ++turn) {
    EXPECT_TRUE(take_stack_trace(thread_id, 10, trace));
    text = to_text(trace);
  }
  may_end = true;
  thread.join();
  EXPECT_NE(text.find("red::test::compute_without_an_end()"), std::string::npos) << text;
}

TEST_F(StackTraces, OfAThreadThatSleepsInTheSystem) {
  std::promise<pid_t> id;
  std::promise<void> end;
  std::future<void> ended = end.get_future();
  std::thread thread([&] {
    id.set_value(own_id());
    wait_for_the_end(ended);
  });
  StackTrace trace;
  const pid_t thread_id = id.get_future().get();
  std::string text;
  for (int turn = 0; turn < 100 && text.find("red::test::wait_for_the_end") == std::string::npos; ++turn) {
    EXPECT_TRUE(take_stack_trace(thread_id, 10, trace));
    text = to_text(trace);
  }
  const std::string kernel = thread_in_kernel(thread_id);
  end.set_value();  // the wait goes on as if there had been no signal
  thread.join();
  EXPECT_NE(text.find("red::test::wait_for_the_end"), std::string::npos) << text;
  EXPECT_TRUE(kernel.starts_with("state S") || kernel.starts_with("state R")) << kernel;
}

TEST_F(StackTraces, OfTheCallerItself) {
  StackTrace trace;
  EXPECT_TRUE(take_stack_trace(own_id(), 1, trace));
  EXPECT_NE(to_text(trace).find("red::take_stack_trace"), std::string::npos) << to_text(trace);
}

TEST_F(StackTraces, AThreadThatTakesNoSignalsHasNoneAndDisturbsNoOther) {
  std::promise<pid_t> id;
  std::promise<void> end;
  std::thread deaf([&] {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, nullptr);
    id.set_value(own_id());
    end.get_future().wait();
    sigemptyset(&all);
    pthread_sigmask(SIG_SETMASK, &all, nullptr);  // the signal comes now, and is for nobody
  });
  StackTrace trace;
  EXPECT_FALSE(take_stack_trace(id.get_future().get(), 0.1, trace));
  EXPECT_EQ(trace.num_frames, 0);
  end.set_value();
  deaf.join();
  EXPECT_TRUE(take_stack_trace(own_id(), 1, trace));
}

TEST_F(StackTraces, OfNoThread) {
  StackTrace trace;
  EXPECT_FALSE(take_stack_trace(1, 1, trace));  // not of this process
}

}  // namespace
}  // namespace red::test
