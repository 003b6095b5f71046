// The thread that writes: one job at a time, what it threw, and that everything a job owned is gone before
// anybody hears of its end.
#include "checkpoint/io_thread.hpp"

#include <gtest/gtest.h>

#include <atomic>

#include "base/error.hpp"

namespace red::checkpoint {
namespace {

using namespace std::chrono_literals;

TEST(IoThread, RunsJobsOneAfterAnother) {
  IoThread thread;
  EXPECT_FALSE(thread.busy());
  for (int i = 0; i < 100; ++i) {
    auto owned = std::make_shared<int>(i);
    const std::weak_ptr<int> watched = owned;
    std::atomic<int> seen{-1};
    thread.start([owned = std::move(owned), &seen] { seen = *owned; });
    while (thread.busy()) thread.wait_for(1ms);
    EXPECT_EQ(seen, i);
    EXPECT_TRUE(watched.expired());
  }
}

TEST(IoThread, KeepsWhatAJobThrew) {
  IoThread thread;
  thread.start([] { throw IoError("disk {}", 7); });
  while (thread.busy()) thread.wait_for(1ms);
  ASSERT_TRUE(thread.error());
  EXPECT_THROW(std::rethrow_exception(thread.error()), IoError);
  thread.start([] {});
  while (thread.busy()) thread.wait_for(1ms);
  EXPECT_FALSE(thread.error());
}

TEST(IoThread, HasOneJobAndEndsAfterIt) {
  std::atomic<bool> go{false}, done{false};
  {
    IoThread thread;
    thread.start([&] {
      while (!go) std::this_thread::sleep_for(1ms);
      done = true;
    });
    EXPECT_TRUE(thread.busy());
    EXPECT_FALSE(thread.error());
    EXPECT_THROW(thread.start([] {}), LogicError);
    thread.wait_for(1ms);
    EXPECT_TRUE(thread.busy());
    go = true;
  }
  EXPECT_TRUE(done);
}

}  // namespace
}  // namespace red::checkpoint
