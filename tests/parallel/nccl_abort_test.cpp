// Ranks that are lost while others' GPUs wait for them: what is printed, with which exit code, and how soon.
// On a GPU such a wait never ends by itself.
#include <gtest/gtest.h>

#include <future>
#include <map>
#include <string>

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

// At once: they sleep for most of their time.
TEST(NcclAbort, StuckRanksAreNamedAfterTheDeadline) {
  const std::map<std::string, std::string> waits = {
      {"stuck", "all-reduce of the test on communicator world"},
      // The wait is called behind the stream's.
      {"stuck_without_overlap", "all-reduce on communicator world"},
      {"stuck_connecting", "the connections of NCCL on communicator pipeline (ranks 0, 1, 2), tag 1 "},
      // Nothing but the end of its communicators waits for it.
      {"stuck_at_end", "the end of a communicator of NCCL on communicator "},
  };
  std::map<std::string, std::future<Outcome>> outcomes;
  for (const auto& [mode, wait] : waits) outcomes[mode] = std::async(std::launch::async, run, mode);
  for (const auto& [mode, wait] : waits) {
    const Outcome outcome = outcomes[mode].get();
    SCOPED_TRACE(mode + ": " + outcome.output);
    expect_end(outcome, 8, "held up by rank 1 on");
    EXPECT_EQ(count(outcome.output, " s for " + wait), 1);
    EXPECT_EQ(count(outcome.output, ", more than the 3 s allowed"), 1);
  }
}

TEST(NcclAbort, WhatNcclNoticesEndsTheRun) {
  expect_end(
      run("async"), 6,
      "rank 1 error: NCCL lost a rank or a connection of communicator world: remote process exited or there "
      "was a network error");
}

// The failure is announced before anything is torn down.
TEST(NcclAbort, ARankThatHangsOnItsWayOutHoldsUpNobody) {
  expect_end(run("async_hangs"), 6, "rank 1 error: NCCL lost a rank or a connection of communicator world");
}

}  // namespace
}  // namespace red::parallel
