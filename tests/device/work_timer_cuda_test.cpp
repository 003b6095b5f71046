#include <gtest/gtest.h>

#include <chrono>
#include <vector>

#include "device/buffer.hpp"
#include "device/work_timer.hpp"

namespace red {
namespace {

TEST(WorkTimer, SumsWhatTheDeviceTakesByKind) {
  Stream stream(1);
  WorkTimer timer(stream, 3);
  const std::vector<float> values(1 << 18, 1.0F);
  Buffer memory(values.size() * sizeof(float));
  const auto work = [&](int kind) {
    timer.begin(kind);
    copy_to_device(stream, memory.data(), values.data(), memory.num_bytes());
    timer.end();
  };
  const auto begin = std::chrono::steady_clock::now();
  for (const int kind : {1, 2, 1}) work(kind);
  stream.synchronize();
  const double wall = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  const std::span<const double> seconds = timer.collect();
  ASSERT_EQ(seconds.size(), 3U);
  EXPECT_EQ(seconds[0], 0.0);
  EXPECT_GT(seconds[1], 0.0);
  EXPECT_GT(seconds[2], 0.0);
  EXPECT_LE(seconds[1] + seconds[2], wall);

  work(0);  // with events that were used before
  stream.synchronize();
  EXPECT_GT(timer.collect()[0], 0.0);
  EXPECT_EQ(timer.collect()[0], 0.0);
  EXPECT_EQ(timer.collect()[1], 0.0);
}

TEST(WorkTimer, TellsWaitsForOtherRanksApart) {
  Stream stream(1);
  WorkTimer timer(stream, 2);
  const std::vector<float> values(1 << 18, 1.0F);
  Buffer memory(values.size() * sizeof(float));
  const auto work = [&] { copy_to_device(stream, memory.data(), values.data(), memory.num_bytes()); };
  const auto wait = [&] {
    timer.begin_wait();
    for (int i = 0; i < 20; ++i) work();
    timer.end_wait();
  };
  for (int round = 0; round < 2; ++round) {  // the second with events that were used before
    timer.start();
    for (const int kind : {0, 1}) {
      timer.begin(kind);
      work();
      if (kind == 1) wait();
      timer.end();
    }
    wait();
    stream.synchronize();
    const std::span<const double> seconds = timer.collect(), waited = timer.waited();
    ASSERT_EQ(seconds.size(), 2U);
    ASSERT_EQ(waited.size(), 3U);
    EXPECT_EQ(waited[0], 0.0);
    EXPECT_GT(waited[1], 0.0);
    EXPECT_GT(waited[2], 0.0);
    EXPECT_GT(seconds[0], 0.0);
    EXPECT_GT(seconds[1], 0.0);
    EXPECT_LT(seconds[1], waited[1]);  // one piece of work, not twenty-one
  }
  timer.start();
  EXPECT_EQ(timer.collect()[1], 0.0);
  EXPECT_EQ(timer.waited()[2], 0.0);
}

}  // namespace
}  // namespace red
