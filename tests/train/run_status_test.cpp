// What is told of a run from its folder: every way it may have ended, and files that are half written.
#include "train/run_status.hpp"

#include <gtest/gtest.h>

#include <fstream>

#include "base/error.hpp"
#include "support/temporary_folder.hpp"

namespace red::train {
namespace {

namespace fs = std::filesystem;

class RunStatusTest : public testing::Test {
 protected:
  void add(const std::string& file, const std::string& text) const {
    std::ofstream(folder_.path() / file, std::ios::app) << text;
  }
  void configure() const { add("configuration.ini", "[model]\nname = small\n[train]\nsteps = 100\n"); }
  void metrics(int64_t step, double time) const {
    add("metrics.jsonl",
        fmt::format(
            R"({{"step":{},"wall_time":{},"loss":{},"step_s":1.0,"tokens_per_s":50.0,"applied":true}})"
            "\n",
            step, time, 5.0 - 0.01 * static_cast<double>(step)));
  }
  RunStart start(const std::string& id, int64_t from_step) const {
    RunStart start;
    start.holder = own_holder(id);
    start.time = seconds_since_1970() - 100;
    start.num_ranks = 4;
    start.from_step = from_step;
    start.steps = 100;
    log_start(folder_.path(), start);
    log_training(folder_.path(), start);
    return start;
  }
  void end(const std::string& id, int code, const std::string& reason) const {
    log_end(folder_.path(), id, {seconds_since_1970(), code, reason, 12});
  }
  RunStatus status() const { return read_run_status(folder_.path(), false); }

  test::TemporaryFolder folder_;
};

TEST_F(RunStatusTest, AFolderWithoutARunIsRefused) {
  EXPECT_THROW(status(), ConfigError);
  EXPECT_THROW(read_run_status(folder_.path() / "missing", false), ConfigError);
}

TEST_F(RunStatusTest, EveryEndHasItsName) {
  configure();
  EXPECT_EQ(status().state, RunState::unknown);
  start("a", 0);
  EXPECT_EQ(status().state, RunState::died);
  end("a", 6, "rank 1 is gone");
  EXPECT_EQ(status().state, RunState::failed);
  start("b", 10);
  end("b", 75, "asked to stop");
  EXPECT_EQ(status().state, RunState::stopped);
  start("c", 20);
  {
    const RunLock other(folder_.path(), "another");
    EXPECT_EQ(status().state, RunState::died);
  }
  {
    const RunLock lock(folder_.path(), "c");
    EXPECT_EQ(status().state, RunState::running);
  }
  EXPECT_EQ(status().state, RunState::died);
  end("c", 0, "done");
  const RunStatus last = status();
  EXPECT_EQ(last.state, RunState::finished);
  ASSERT_EQ(last.starts.size(), 3U);
  EXPECT_EQ(last.starts[0].end->reason, "rank 1 is gone");
  EXPECT_EQ(last.starts[1].from_step, 10);
  EXPECT_EQ(last.starts[2].num_ranks, 4);
}

TEST_F(RunStatusTest, TheFirstEndOfAStartCounts) {
  start("a", 0);
  end("a", 5, "not finite");
  end("a", 6, "later");
  EXPECT_EQ(status().starts.back().end->code, 5);
}

TEST_F(RunStatusTest, ReturnsAreKnownAndAreNoEnds) {
  configure();
  start("a", 0);
  RunReturn back{seconds_since_1970(), 32, 25, {}, "losses up to 9"};
  back.left_out.add(232, 255);
  log_return(folder_.path(), "a", back);
  add("runs.jsonl", R"({"event":"return","id":"a","time":1.0,"step":40,"to_step":35,"left_out":"9-1"})"
                    "\n"
                    R"({"event":"return","id":"a","ti)");
  start("b", 25);
  const RunStatus told = status();
  EXPECT_EQ(told.starts.size(), 2U);
  EXPECT_EQ(told.state, RunState::died);
  ASSERT_EQ(told.returns.size(), 1U);
  EXPECT_EQ(told.returns[0].step, 32);
  EXPECT_EQ(told.returns[0].to_step, 25);
  EXPECT_EQ(told.returns[0].left_out.to_string(), "232-255");
  EXPECT_EQ(told.returns[0].reason, "losses up to 9");
}

TEST_F(RunStatusTest, HalfLinesArePassedOver) {
  configure();
  start("a", 0);
  metrics(1, 10.0);
  metrics(2, 12.0);
  add("metrics.jsonl", R"({"step":3,"wall_ti)");
  add("runs.jsonl", R"({"event":"end","id":"a","co)");
  EXPECT_EQ(status().state, RunState::died);
  EXPECT_EQ(status().progressed->step, 2);
  start("b", 2);  // begins a line of its own
  EXPECT_EQ(status().starts.size(), 2U);
}

TEST_F(RunStatusTest, TimeLeftIsOfTheRecentPace) {
  configure();
  const double begin = start("a", 10).time;
  const RunLock lock(folder_.path(), "a");
  metrics(9, begin - 1000);
  EXPECT_FALSE(status().progressed->seconds_per_step.has_value());
  metrics(10, begin + 10);
  metrics(20, begin + 50);
  const RunStatus s = status();
  EXPECT_DOUBLE_EQ(s.progressed->seconds_per_step.value(), 4.0);
  EXPECT_DOUBLE_EQ(s.left_s.value(), 320.0);
  EXPECT_DOUBLE_EQ(s.progressed->loss.value(), 4.8);
}

TEST_F(RunStatusTest, LossesThatAreNoNumbersAreNothing) {
  configure();
  add("metrics.jsonl", R"({"step":4,"wall_time":5.0,"loss":null,"applied":false})"
                       "\n");
  EXPECT_FALSE(status().progressed->loss.has_value());
  EXPECT_EQ(status().progressed->skipped, 1);
}

TEST(LastLines, AreWholeOnes) {
  const test::TemporaryFolder folder;
  const fs::path path = folder.path() / "file";
  EXPECT_TRUE(last_lines(path, 10).empty());
  std::ofstream(path) << "one\ntwo\nthree";
  using Lines = std::vector<std::string>;
  EXPECT_EQ(last_lines(path, 100), (Lines{"one", "two"}));
  EXPECT_EQ(last_lines(path, 12), (Lines{"two"}));
  EXPECT_EQ(last_lines(path, 3), Lines{});
}

}  // namespace
}  // namespace red::train
