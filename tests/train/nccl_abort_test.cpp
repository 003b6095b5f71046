// A rank that is lost while others train or score on their GPUs: the host's wait for the step's numbers ends,
// and says what for. Nothing watches the main thread here, as in evaluation and generation.
#include <gtest/gtest.h>

#include <algorithm>
#include <future>
#include <string>
#include <vector>

#include "parallel/abort_run.hpp"

namespace red::parallel {
namespace {

struct Case {
  std::string mode;
  int exit_code;
  std::string message;            ///< in the one line with " error: "
  std::vector<std::string> more;  ///< there, too
};

const std::string kNotice = "rank 1 error: NCCL lost a rank or a connection of communicator ",
                  kLost = ": remote process exited or there was a network error",
                  kAllowed = ", more than the 3 s allowed";

const std::vector<Case> kCases = {
    // These sleep for most of their time.
    {"step-stuck",
     8,
     "held up by rank 1 on",
     {"rank 0 error: rank 0 waited 3.", " on communicator data (ranks 0, 1)" + kAllowed}},
    {"score-stuck",
     8,
     "held up by rank 1 on",
     {"rank 0 error: rank 0 waited 3.",
      " s for all-reduce over the tensor axis on communicator tensor (ranks 0, 1)" + kAllowed}},
    {"message-stuck",
     8,
     "held up by rank 0 on",
     {"rank 0 error: rank 1 waited 3.",
      " s for activations of the stage before on communicator pipeline (ranks 0, 1)"}},
    {"step-kill", 6, "rank 0 error: rank 1 on", {}},
    {"step-async", 6, kNotice, {kLost}},
    {"step-throw", 3, "rank 1 error: token file broken.bin ends early", {}},
    {"score-kill", 6, "rank 0 error: rank 1 on", {}},
    {"score-async", 6, kNotice, {kLost}},
    {"step-none", 0, "", {}},
};

TEST(NcclAbort, EachEndOfAStepOrAScoreIsNamed) {
  constexpr std::size_t at_once = 3;
  for (std::size_t first = 0; first < kCases.size(); first += at_once) {
    std::vector<std::future<Outcome>> outcomes;
    for (std::size_t i = first; i < std::min(first + at_once, kCases.size()); ++i)
      outcomes.push_back(
          std::async(std::launch::async, [i] { return run_ranks(NCCL_ABORT_PROGRAM, kCases[i].mode, 2); }));
    for (std::size_t i = 0; i < outcomes.size(); ++i) {
      const Case& which = kCases[first + i];
      const Outcome outcome = outcomes[i].get();
      SCOPED_TRACE(which.mode + ": " + outcome.output);
      if (which.exit_code == 0) {
        EXPECT_EQ(outcome.exit_code, 0);
        EXPECT_EQ(outcome.output, "all steps done\n");
        continue;
      }
      // mpirun sees a death too, and its exit code wins when it is faster.
      const bool killed = which.mode.ends_with("kill") && outcome.exit_code == 137;
      expect_end(outcome, killed ? 137 : which.exit_code, which.message);
      for (const std::string& text : which.more) EXPECT_EQ(count(outcome.output, text), 1) << text;
      EXPECT_LT(outcome.seconds, 15);
    }
  }
}

}  // namespace
}  // namespace red::parallel
