#include "parallel/wait_report.hpp"

#include <gtest/gtest.h>

#include <algorithm>

namespace red::parallel {
namespace {

RankState waiting(int rank, const std::string& host, double seconds, const std::string& what) {
  return {rank, host, true, true, seconds, what};
}

RankState busy(int rank, const std::string& host, double seconds, const std::string& last_wait) {
  return {rank, host, true, false, seconds, last_wait};
}

RankState silent(int rank, const std::string& host) {
  return {rank, host, false, false, 0, ""};
}

TEST(WaitReport, NamesTheOneRankThatDoesNotWait) {
  EXPECT_EQ(wait_report("rank 2 waited 60 s for norm", {waiting(0, "a", 61, "norm on communicator data"),
                                                        busy(1, "b", 63, "bucket 3 on communicator data"),
                                                        waiting(2, "b", 60, "norm on communicator data"),
                                                        waiting(3, "b", 62, "activation of micro-batch 4")}),
            "rank 2 waited 60 s for norm; held up by rank 1 on b\n"
            "  rank 1 on b waits for nobody since 63 s (computes or is stuck); its last wait was for "
            "bucket 3 "
            "on communicator data\n"
            "  ranks 0, 2 wait for norm on communicator data since 61 s\n"
            "  rank 3 waits for activation of micro-batch 4 since 62 s");
}

TEST(WaitReport, SilentRanksComeFirst) {
  EXPECT_EQ(wait_report("rank 2 waited", {busy(0, "a", 5, ""), silent(1, "b"), waiting(2, "c", 9, "norm")}),
            "rank 2 waited; held up by rank 1 on b\n"
            "  rank 1 on b does not answer: it was stopped, or its machine or network is gone\n"
            "  rank 0 on a waits for nobody since 5 s (computes or is stuck); it has waited for "
            "nobody so far\n"
            "  rank 2 waits for norm since 9 s");
}

TEST(WaitReport, AllWaiting) {
  EXPECT_EQ(wait_report("rank 0 waited", {waiting(0, "a", 1, "x"), waiting(1, "a", 2, "y")}),
            "rank 0 waited; every rank waits, so their operations do not match\n"
            "  rank 0 waits for x since 1 s\n  rank 1 waits for y since 2 s");
}

TEST(WaitReport, SaysWhereRanksAreAndWhichDiskTheyWaitFor) {
  RankState reading = busy(1, "b", 63, "norm");
  reading.position = "step 12, reading samples (data 1)";
  reading.blocking = "reading '/data/wiki.bin' since 62 s";
  RankState other = waiting(0, "a", 60, "norm");
  other.position = "step 12, gradients and update (data 0)";
  other.blocking = "checkpoint thread syncing 'shard' since 3 s";
  EXPECT_EQ(wait_report("rank 0 waited 60 s for norm", {other, reading}),
            "rank 0 waited 60 s for norm; held up by rank 1 on b\n"
            "  rank 1 on b reading '/data/wiki.bin' since 62 s, at step 12, reading samples (data 1)\n"
            "  rank 0 waits for norm since 60 s, at step 12, gradients and update (data 0); "
            "checkpoint thread syncing 'shard' since 3 s");
}

TEST(WaitReport, ARankThatNamesItselfIsNotLookedFor) {
  EXPECT_EQ(wait_report("rank 1 on b is stuck", {waiting(0, "a", 1, "x"), busy(1, "b", 2, "x")}, 1),
            "rank 1 on b is stuck\n"
            "  rank 1 on b waits for nobody since 2 s (computes or is stuck); its last wait was for x\n"
            "  rank 0 waits for x since 1 s");
}

TEST(WaitReport, NewsComeOutAsTheyWentIn) {
  RankState state = waiting(1, "b", 2, "norm on communicator data (ranks 1, 3)");
  state.blocking = "reading 'x' since 1 s";
  RankState other;
  take_news(other, to_news(state));
  EXPECT_EQ(other.what, state.what);
  EXPECT_EQ(other.position, "");
  EXPECT_EQ(other.blocking, state.blocking);
  take_news(other, "");
  EXPECT_EQ(other.what + other.position + other.blocking, "");
}

TEST(WaitReport, StaysShortWithManyRanks) {
  std::vector<RankState> states;
  for (int r = 0; r < 300; ++r) {
    states.push_back(r % 2 == 0 ? waiting(r, "h", 1, std::to_string(r)) : busy(r, "h", 1, ""));
  }
  const std::string text = wait_report("rank 0 waited", states);
  EXPECT_NE(text.find("held up by ranks 1, 3, 5, 7, 9, 11, 13, 15 and 142 more\n"), std::string::npos)
      << text;
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 16);
}

}  // namespace
}  // namespace red::parallel
