// What the watched threads of a process do, as another thread sees it.
#include "base/watch.hpp"

#include <gtest/gtest.h>

#include <chrono>
#include <future>
#include <string>
#include <thread>

namespace red::test {
namespace {

TEST(Watch, AThreadThatIsNotWatchedIsNotSeen) {
  const watch::Activity activity("computing");
  const watch::BlockingPoint reading("reading", "a file");
  EXPECT_TRUE(watch::look().empty());
}

TEST(Watch, PositionsLieInEachOtherAndComeBack) {
  const watch::Thread watched("main thread");
  EXPECT_EQ(watch::look().at(0).position, "");
  EXPECT_FALSE(watch::look().at(0).computes);
  {
    const watch::Activity step("gradients and update");
    watch::at_step(12);
    {
      watch::Activity passes("pipeline");
      passes.now({"receive_gradient", 3, 1, 2});
      EXPECT_EQ(watch::look().at(0).position,
                "step 12, receive_gradient of micro-batch 3 in chunk 1 from stage 2");
      passes.now({"send_activation", 0, 0, 1});
      EXPECT_EQ(watch::look().at(0).position, "step 12, send_activation of micro-batch 0 to stage 1");
      EXPECT_TRUE(watch::look().at(0).computes);
    }
    EXPECT_EQ(watch::look().at(0).position, "step 12, gradients and update");
  }
  EXPECT_EQ(watch::look().at(0).position, "step 12");
  EXPECT_FALSE(watch::look().at(0).computes);
}

TEST(Watch, TheInnermostCallCounts) {
  const watch::Thread watched("main thread");
  const watch::Activity activity("saving");
  {
    const watch::BlockingPoint outer("laying out", "shard");
    {
      const watch::BlockingPoint inner("writing", "/runs/a/shard");
      EXPECT_EQ(watch::look().at(0).blocking, "writing '/runs/a/shard'");
      EXPECT_FALSE(watch::look().at(0).computes);
    }
    EXPECT_EQ(watch::look().at(0).blocking, "laying out 'shard'");
  }
  EXPECT_EQ(watch::look().at(0).blocking, "");
  EXPECT_TRUE(watch::look().at(0).computes);
}

TEST(Watch, CallsDeeperThanThereIsRoomForAreCounted) {
  const watch::Thread watched("main thread");
  const watch::BlockingPoint one("1", "a"), two("2", "b"), three("3", "c"), four("4", "d");
  {
    const watch::BlockingPoint five("5", "e"), six("6", "f");
    EXPECT_EQ(watch::look().at(0).blocking, "4 'd'");
  }
  EXPECT_EQ(watch::look().at(0).blocking, "4 'd'");
}

TEST(Watch, OfALongNameTheEndStays) {
  const watch::Thread watched("main thread");
  const std::string name = std::string(1000, 'x') + "/the_end";
  const watch::BlockingPoint reading("reading", name);
  const std::string blocking = watch::look().at(0).blocking;
  EXPECT_LT(blocking.size(), 300U);
  EXPECT_TRUE(blocking.ends_with("x/the_end'")) << blocking;
}

TEST(Watch, TimesBeginAnewWheneverTheThreadGoesOn) {
  const watch::Thread watched("main thread");
  watch::Activity activity("computing");
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  EXPECT_GE(watch::look().at(0).unmoved_s, 0.3);
  activity.now({"computing on"});
  EXPECT_LT(watch::look().at(0).unmoved_s, 0.3);
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  { const watch::BlockingPoint reading("reading", "a file"); }
  EXPECT_LT(watch::look().at(0).unmoved_s, 0.3);
}

TEST(Watch, OtherThreadsComeAfterTheMainOneAndGo) {
  const watch::Thread watched("main thread");
  std::promise<void> seen, in_call;
  std::thread other([&] {
    const watch::Thread writer("writer");
    const watch::BlockingPoint syncing("syncing", "shard");
    in_call.set_value();
    seen.get_future().wait();
  });
  in_call.get_future().wait();
  const auto all = watch::look();
  seen.set_value();
  other.join();
  ASSERT_EQ(all.size(), 2U);
  EXPECT_EQ(all[0].thread, "main thread");
  EXPECT_EQ(all[1].thread, "writer");
  EXPECT_EQ(all[1].blocking, "syncing 'shard'");
  EXPECT_EQ(watch::look().size(), 1U);
}

}  // namespace
}  // namespace red::test
