// redllm-cuda over what stands for NCCL: a rank that is really slowed down is named, and not those that wait
// for it. There the compute stream waits and not the host.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <map>

#include "integration/good_inputs.hpp"
#include "integration/slow_rank.hpp"
#include "integration/working_directory.hpp"

namespace red::test {
namespace {

using nlohmann::json;

class CudaStraggler : public testing::TestWithParam<const char*> {
 protected:
  CudaStraggler() { copy_good_inputs(folder_.path()); }
  std::string log() const { return read_bytes(folder_.path() / "slow.log"); }

  WorkingDirectory folder_;
};

TEST_P(CudaStraggler, IsNamedAndNotWhoWaitsForIt) {
  const std::string run = fmt::format(
      "CUDA_ON_CPU_DEVICES=2 RED_GEMM_CACHE=off {}/launch/local.sh -n 2 {} train --config=run.ini "
      "--train.run_dir=slow --train.precision=fp32 --schedule.kind=constant --train.micro_batch=1 "
      "--train.global_batch=4 --train.steps=1000000 --train.log_every=1 --train.straggler_every=2 "
      "--parallel.transport=nccl {}",
      RED_SOURCE_DIR, RED_PROGRAM, GetParam());
  const std::vector<json> metrics =
      run_with_slow_rank(run, RED_PROGRAM, {.begin = 4, .steps = 16}, folder_.path());
  const int begin = std::stoi(read_bytes(folder_.path() / "begin"));
  std::map<int, int> named;  // by rank, the steps at which it was, behind three windows
  int steps = 0;
  for (const json& m : metrics) {
    if (m.at("step").get<int>() < begin + 8) continue;
    ++steps;
    if (!m.contains("stragglers")) continue;
    for (const json& slow : m.at("stragglers")) ++named[slow.at("rank").get<int>()];
  }
  EXPECT_EQ(named[0], 0) << log();
  EXPECT_EQ(named[1], steps) << log();
  EXPECT_NE(log().find(": rank 1 on "), std::string::npos) << log();
}

INSTANTIATE_TEST_SUITE_P(OfPeers, CudaStraggler,
                         testing::Values("--parallel.data=2", "--parallel.data=1 --parallel.tensor=2"));

}  // namespace
}  // namespace red::test
