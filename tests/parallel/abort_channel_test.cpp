// Real processes under mpirun that throw, die, stop or get stuck: what is printed, by how many, with which
// exit code, how soon, and that no process stays behind.
#include <gtest/gtest.h>

#include "parallel/abort_run.hpp"

namespace red::parallel {
namespace {

Outcome run(const std::string& mode, int num_ranks = 4) {
  return run_ranks(ABORT_PROGRAM, mode, num_ranks);
}

TEST(AbortChannel, NothingHappens) {
  for (const int num_ranks : {1, 4}) {
    const Outcome outcome = run("none", num_ranks);
    EXPECT_EQ(outcome.exit_code, 0);
    EXPECT_EQ(outcome.output, "all steps done\n");
  }
}

TEST(AbortChannel, ExceptionOnAnyRankEndsAllWithItsCode) {
  expect_end(run("throw"), 3, "rank 1 error: token file broken.bin ends early");
  expect_end(run("throw0"), 3, "rank 0 error: token file broken.bin ends early");
  expect_end(run("throw0", 1), 3, "error: token file broken.bin ends early");
  expect_end(run("unexpected"), 1, "rank 1 error: internal error: somebody's vector");
}

TEST(AbortChannel, TheSameExceptionOnAllRanksIsPrintedOnce) {
  expect_end(run("throw_everywhere"), 2, "model.heads = 3 does not divide model.width = 64");
}

TEST(AbortChannel, KilledRankIsNamed) {
  // mpirun sees the death too, and its exit code wins when it is faster.
  const Outcome outcome = run("kill");
  EXPECT_TRUE(outcome.exit_code == 6 || outcome.exit_code == 137) << outcome.exit_code;
  expect_end(outcome, outcome.exit_code, "rank 0 error: rank 1 on");
  const Outcome outcome0 = run("kill0");
  EXPECT_TRUE(outcome0.exit_code == 6 || outcome0.exit_code == 137) << outcome0.exit_code;
  expect_end(outcome0, outcome0.exit_code, "rank 1 error: rank 0 on");
}

TEST(AbortChannel, RankThatLeavesInSilenceCountsAsDead) {
  const Outcome outcome = run("exit");
  EXPECT_NE(outcome.exit_code, 0);
  expect_end(outcome, outcome.exit_code, "rank 0 error: rank 1 on");
}

TEST(AbortChannel, StuckRankIsNamedAfterTheDeadline) {
  const Outcome outcome = run("stuck");
  expect_end(outcome, 8, "held up by rank 1 on");
  EXPECT_EQ(
      count(outcome.output, "for all-reduce of the test on communicator world, more than the 3 s allowed"),
      1);
  EXPECT_EQ(count(outcome.output, "waits for nobody since"), 1) << outcome.output;
  EXPECT_EQ(
      count(outcome.output, "ranks 0, 2, 3 wait for all-reduce of the test on communicator world since"), 1)
      << outcome.output;
  EXPECT_GT(outcome.seconds, 3);
}

TEST(AbortChannel, StoppedRankIsNamed) {
  const Outcome outcome = run("stop");
  expect_end(outcome, 8, "held up by rank 1 on");
  EXPECT_EQ(count(outcome.output, "does not answer: it was stopped"), 1) << outcome.output;
}

TEST(AbortChannel, StoppedRank0IsNamedByAnother) {
  const Outcome outcome = run("stop0");
  expect_end(outcome, 8, "which hears from all ranks what they wait for, does not answer");
}

TEST(AbortChannel, SumsThatDoNotMatchAreToldApart) {
  const Outcome outcome = run("other_sum");
  expect_end(outcome, 1, "on communicator world its rank");
  EXPECT_EQ(count(outcome.output, "all-reduce (sum) of 10 fp64 elements"), 1) << outcome.output;
  EXPECT_EQ(count(outcome.output, "all-reduce (max) of 100000 fp32 elements"), 1) << outcome.output;
}

TEST(AbortChannel, OperationsThatDoNotMatch) {
  expect_end(run("mismatch"), 8, "every rank waits, so their operations do not match");
}

TEST(AbortChannel, RankThatNeverWaitsIsEnded) {
  // The rank spins without a call, so only the launcher or its own thread can end it.
  const Outcome outcome = run("spin_and_throw");
  EXPECT_EQ(outcome.exit_code, 3);
  EXPECT_EQ(count(outcome.output, "rank 0 error: token file broken.bin ends early"), 1) << outcome.output;
  EXPECT_LT(outcome.seconds, 30);
  EXPECT_FALSE(outcome.processes_left);
}

}  // namespace
}  // namespace red::parallel
