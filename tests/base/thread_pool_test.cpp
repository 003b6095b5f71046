// The thread pool: every task once, exceptions and the hook on the calling thread, no lost wake-up.
#include "base/thread_pool.hpp"

#include <gtest/gtest.h>

#include <set>
#include <stdexcept>

#include "base/error.hpp"

namespace red::test {
namespace {

class ThreadPoolOf : public testing::TestWithParam<int> {
 protected:
  ThreadPool pool_{GetParam()};
};

TEST_P(ThreadPoolOf, RunsEveryTaskOnce) {
  EXPECT_EQ(pool_.num_threads(), GetParam());
  for (const int64_t num_tasks : {0, 1, 2, 3, 1000}) {
    std::vector<std::atomic<int>> runs(num_tasks + 1);
    pool_.run(num_tasks, [&](int64_t i) { ++runs[i]; });
    for (int64_t i = 0; i < num_tasks; ++i) EXPECT_EQ(runs[i], 1) << "task " << i << " of " << num_tasks;
    EXPECT_EQ(runs[num_tasks], 0);
  }
}

/// Regions that are over before a worker wakes up, and results that must be seen without atomics.
TEST_P(ThreadPoolOf, SurvivesManyShortRegions) {
  std::vector<int64_t> sums(7, 0);
  constexpr int64_t regions = 1000;
  for (int64_t r = 1; r <= regions; ++r) {
    pool_.run(static_cast<int64_t>(sums.size()), [&](int64_t i) { sums[i] += r; });
  }
  for (const int64_t sum : sums) EXPECT_EQ(sum, regions * (regions + 1) / 2);
}

TEST_P(ThreadPoolOf, RethrowsAnExceptionAndGoesOn) {
  for (const int64_t bad : {0, 5, 31}) {
    try {
      pool_.run(32, [&](int64_t i) {
        if (i == bad) throw std::runtime_error("task " + std::to_string(i));
      });
      ADD_FAILURE() << "the exception of task " << bad << " was lost";
    } catch (const std::runtime_error& error) {
      EXPECT_EQ(error.what(), "task " + std::to_string(bad));
    }
    std::atomic<int> runs = 0;
    pool_.run(32, [&](int64_t) { ++runs; });
    EXPECT_EQ(runs, 32);
  }
}

TEST_P(ThreadPoolOf, CallsTheHookOnTheCallingThreadAlone) {
  const std::thread::id caller = std::this_thread::get_id();
  int calls = 0;
  bool elsewhere = false;
  pool_.set_between_tasks([&] {
    ++calls;
    elsewhere = elsewhere || std::this_thread::get_id() != caller;
  });
  for (int i = 0; i < 20; ++i) pool_.run(50, [](int64_t) {});
  EXPECT_GT(calls, 0);
  EXPECT_FALSE(elsewhere);
  if (GetParam() == 1) {
    EXPECT_EQ(calls, 20 * 50);
  }
  pool_.set_between_tasks({});
  calls = 0;
  pool_.run(50, [](int64_t) {});
  EXPECT_EQ(calls, 0);
}

INSTANTIATE_TEST_SUITE_P(Threads, ThreadPoolOf, testing::Values(1, 2, 3, 8));

/// The caller has no task left, but a worker's task needs what the hook does (a message to move on).
TEST(ThreadPool, CallsTheHookWhileItWaitsForWorkers) {
  ThreadPool pool(2);
  std::atomic<int> calls = 0;
  pool.set_between_tasks([&] { ++calls; });
  const std::thread::id caller = std::this_thread::get_id();
  std::atomic<bool> worker_has_one = false;
  pool.run(2, [&](int64_t) {
    if (std::this_thread::get_id() == caller) {
      while (!worker_has_one) std::this_thread::yield();  // or it would take both
      return;
    }
    worker_has_one = true;
    const int before = calls;
    while (calls < before + 3) std::this_thread::yield();
  });
  EXPECT_GE(calls, 3);
}

TEST(ThreadPool, UsesItsThreads) {
  ThreadPool pool(3);
  std::mutex mutex;
  std::set<std::thread::id> seen;
  // Each task waits for two others: it can only end with three threads at work.
  pool.run(3, [&](int64_t) {
    {
      const std::lock_guard lock(mutex);
      seen.insert(std::this_thread::get_id());
    }
    for (std::size_t count = 0; count < 3;) {
      std::this_thread::yield();
      const std::lock_guard lock(mutex);
      count = seen.size();
    }
  });
  EXPECT_EQ(seen.size(), 3U);
}

TEST(ThreadPool, OfNoThreadIsRefused) {
  EXPECT_THROW(ThreadPool(0), LogicError);
}

}  // namespace
}  // namespace red::test
