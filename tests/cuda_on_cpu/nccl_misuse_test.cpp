// Each mistake that can be made with NCCL, planted: the fake must catch it, and nothing without it.
#include <gtest/gtest.h>

#include <future>
#include <vector>

#include "integration/child_process.hpp"

namespace cuda_on_cpu {
namespace {

struct Case {
  std::string mode;
  std::string words;  ///< that it is caught with; empty: it must not be
  std::string streams = "lazy";
};

const std::vector<Case> kCases = {
    {"good", ""},
    {"good", "", "random"},
    {"good", "", "eager"},
    // Calls that are refused.
    {"host_memory", "", "eager"},
    {"too_long", "", "eager"},
    // Ranks that call different things.
    {"counts", "ranks call NCCL differently"},
    {"types", "ranks call NCCL differently"},
    {"order", "ranks call NCCL differently"},
    // Memory that is used before its operation is over.
    {"source_changed", "reads was changed before it was over"},
    {"target_written", "writes was written before it was over"},
    {"reads_early", "a wrong result"},
    // Waits in which a lost rank would not be seen.
    {"pageable_copy", "the host waits inside CUDA for another process"},
    {"stream_wait", "the host waits inside CUDA for another process"},
    {"event_wait", "the host waits inside CUDA for another process"},
    // Messages that wait for each other.
    {"send_before_receive", "a transfer's other side does not come"},
    {"send_before_receive", "a transfer's other side does not come", "eager"},
    // Communicators out of turn.
    {"blocking", "a communicator of NCCL that blocks"},
    {"in_progress", "is in progress"},
    {"two_streams", "used on two streams"},
    {"no_finalize", "without ncclCommFinalize"},
    {"ends_early", "operations under way"},
};

red::test::ChildResult run(const Case& which) {
  return red::test::run_child({"/usr/bin/env", "CUDA_ON_CPU_STREAMS=" + which.streams, "CUDA_ON_CPU_STUCK=2",
                               RED_SOURCE_DIR "/launch/local.sh", "-n", "2", NCCL_MISUSE_PROGRAM, which.mode},
                              RED_BINARY_DIR, 60);
}

// Several at a time: most of them wait for mpirun to end what is left.
TEST(NcclMisuse, EachMistakeIsCaughtAndNothingElse) {
  constexpr std::size_t at_once = 6;
  for (std::size_t first = 0; first < kCases.size(); first += at_once) {
    std::vector<std::future<red::test::ChildResult>> results;
    for (std::size_t i = first; i < std::min(first + at_once, kCases.size()); ++i)
      results.push_back(std::async(std::launch::async, run, kCases[i]));
    for (std::size_t i = 0; i < results.size(); ++i) {
      const Case& which = kCases[first + i];
      const red::test::ChildResult result = results[i].get();
      SCOPED_TRACE(which.mode + ", " + which.streams + ": " + result.err);
      EXPECT_EQ(result.exit_code == 0, which.words.empty());
      EXPECT_NE(result.err.find(which.words), std::string::npos) << which.words;
    }
  }
}

}  // namespace
}  // namespace cuda_on_cpu
