// When a command fails on one rank or on all, one message is printed and the exit code says what it was.
#include <gtest/gtest.h>

#include "base/error.hpp"
#include "integration/child_process.hpp"

namespace red::test {
namespace {

const std::string kLocal = RED_SOURCE_DIR "/launch/local.sh";

struct Failing {
  std::string who, how, message;
  ExitCode code;
};

class FailingRanks : public testing::TestWithParam<Failing> {};

TEST_P(FailingRanks, EndTheRunWithOneMessage) {
  const Failing& failing = GetParam();
  const ChildResult result =
      run_child({kLocal, "-n", "3", RED_FAILING_PROGRAM, failing.who, failing.how}, ".", 60);
  EXPECT_EQ(result.exit_code, static_cast<int>(failing.code)) << result.err;
  const std::size_t first = result.err.find(failing.message);
  EXPECT_NE(first, std::string::npos) << result.err;
  EXPECT_EQ(result.err.find(failing.message, first + 1), std::string::npos) << result.err;
}

INSTANTIATE_TEST_SUITE_P(
    Ways, FailingRanks,
    testing::Values(Failing{"0", "data", "a token file that is cut short", ExitCode::data},
                    Failing{"2", "data", "a token file that is cut short", ExitCode::data},
                    Failing{"all", "configuration", "a layout that does not fit", ExitCode::configuration},
                    Failing{"1", "io", "a checkpoint: No space left on device", ExitCode::io},
                    Failing{"1", "memory", "out of memory", ExitCode::internal},
                    Failing{"all", "internal", "internal error: an index", ExitCode::internal}));

TEST(RanksThatDoNotFail, SayNothing) {
  const ChildResult result = run_child({kLocal, "-n", "3", RED_FAILING_PROGRAM, "none", "data"}, ".", 60);
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(result.err, "");
}

}  // namespace
}  // namespace red::test
