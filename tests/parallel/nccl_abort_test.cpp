// Ranks that are lost while others' GPUs wait for them: what is printed, with which exit code, and how soon.
// On a GPU such a wait never ends by itself.
#include <gtest/gtest.h>

#include "parallel/abort_run.hpp"

namespace red::parallel {
namespace {

Outcome run(const std::string& mode) {
  return run_ranks(NCCL_ABORT_PROGRAM, mode, 3);
}

TEST(NcclAbort, NothingHappens) {
  const Outcome outcome = run("none");
  EXPECT_EQ(outcome.exit_code, 0) << outcome.output;
  EXPECT_EQ(outcome.output, "all steps done\n");
}

TEST(NcclAbort, KilledRankIsNamed) {
  const Outcome outcome = run("kill");
  // mpirun sees the death too, and its exit code wins when it is faster.
  EXPECT_TRUE(outcome.exit_code == 6 || outcome.exit_code == 137) << outcome.exit_code;
  expect_end(outcome, outcome.exit_code, "rank 0 error: rank 1 on");
}

TEST(NcclAbort, AnExceptionOnOneRankEndsAllWithItsCode) {
  expect_end(run("throw"), 3, "rank 1 error: token file broken.bin ends early");
}

TEST(NcclAbort, StuckRankIsNamedAfterTheDeadline) {
  const Outcome outcome = run("stuck");
  expect_end(outcome, 8, "held up by rank 1 on");
  EXPECT_EQ(
      count(outcome.output, "for all-reduce of the test on communicator world, more than the 3 s allowed"), 1)
      << outcome.output;
}

TEST(NcclAbort, ARankThatDoesNotComeToBeConnectedIsNamed) {
  const Outcome outcome = run("stuck_connecting");
  expect_end(outcome, 8, "held up by rank 1 on");
  EXPECT_EQ(count(outcome.output,
                  " s for the connections of NCCL on communicator pipeline (ranks 0, 1, 2), tag 1 "),
            1)
      << outcome.output;
}

TEST(NcclAbort, WhatNcclNoticesEndsTheRun) {
  expect_end(
      run("async"), 6,
      "rank 1 error: NCCL lost a rank or a connection of communicator world: remote process exited or there "
      "was a network error");
}

}  // namespace
}  // namespace red::parallel
