// train.deterministic = yes on the CUDA backend: the same run twice has the same bits, although algorithms of
// products round differently and which is fastest is chance, alone and with ranks over what stands for NCCL.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <vector>

#include "integration/child_process.hpp"
#include "integration/good_inputs.hpp"
#include "integration/working_directory.hpp"

namespace red::test {
namespace {

class DeterministicTest : public testing::Test {
 protected:
  DeterministicTest() { copy_good_inputs(folder_.path()); }

  /// The digest of the checkpoint that a run of a few steps ends with. Of each product's algorithms that of
  /// number `fastest` is the fastest.
  std::string digest_of_run(int fastest, int ranks, const std::string& streams,
                            const std::vector<std::string>& options) const {
    const std::string run_dir = fmt::format("run{}", fastest);
    std::vector<std::string> command{"/usr/bin/env",
                                     "CUDA_ON_CPU_DEVICES=2",
                                     "CUDA_ON_CPU_ALGORITHMS=differ",
                                     fmt::format("CUDA_ON_CPU_FASTEST={}", fastest),
                                     "CUDA_ON_CPU_STREAMS=" + streams,
                                     "RED_GEMM_CACHE=off",
                                     RED_SOURCE_DIR "/launch/local.sh",
                                     "-n",
                                     std::to_string(ranks),
                                     RED_PROGRAM,
                                     "train",
                                     "--config=run.ini",
                                     "--train.run_dir=" + run_dir,
                                     "--train.steps=3",
                                     "--schedule.kind=constant"};
    command.insert(command.end(), options.begin(), options.end());
    const ChildResult trained = run_child(command, folder_.path(), 100);
    EXPECT_EQ(trained.exit_code, 0) << trained.err;
    if (ranks > 1) {
      EXPECT_NE(trained.err.find("ranks exchange GPU memory over NCCL"), std::string::npos);
    }
    const ChildResult digest =
        run_child({RED_PROGRAM, "inspect", "checkpoint", run_dir, "--digest"}, folder_.path(), 60);
    EXPECT_EQ(digest.exit_code, 0) << digest.err;
    EXPECT_FALSE(digest.out.empty());
    return digest.out;
  }
  void expect_repeats(int ranks, std::vector<std::string> options) const {
    options.push_back("--train.deterministic=yes");
    const std::string first = digest_of_run(1, ranks, "lazy", options);
    options.push_back("--parallel.check_collectives=yes");  // which changes no bit
    EXPECT_EQ(digest_of_run(2, ranks, "eager", options), first);
  }

  WorkingDirectory folder_;
};

// Otherwise the tests below could not fail: another algorithm is another sum.
TEST_F(DeterministicTest, WithoutItTheFastestAlgorithmDecides) {
  const std::vector<std::string> options = {"--train.precision=fp32", "--train.deterministic=no"};
  EXPECT_NE(digest_of_run(1, 1, "lazy", options), digest_of_run(2, 1, "lazy", options));
}

TEST_F(DeterministicTest, OneRank) {
  expect_repeats(1, {"--train.precision=fp32"});
}

TEST_F(DeterministicTest, OneRankInBf16) {
  expect_repeats(1, {"--train.precision=bf16"});
}

TEST_F(DeterministicTest, DataRanks) {
  expect_repeats(2, {"--train.precision=fp32", "--parallel.data=2"});
}

TEST_F(DeterministicTest, TensorRanks) {
  expect_repeats(2, {"--train.precision=fp32", "--parallel.tensor=2"});
}

TEST_F(DeterministicTest, Stages) {
  expect_repeats(2, {"--train.precision=fp32", "--parallel.encoder_stages=1"});
}

}  // namespace
}  // namespace red::test
