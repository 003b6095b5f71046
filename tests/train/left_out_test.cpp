// Runs that pass over samples: a step has the next ones that are not left out, in every layout, and a resume
// agrees.
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "data/sample_digest.hpp"
#include "train/small_run.hpp"

namespace red::test {
namespace {

struct Logged {
  uint64_t first_sample = 0;
  std::string digest;
  double loss = 0.0;
};

std::map<int64_t, Logged> logged_steps(const std::filesystem::path& run_dir) {
  std::map<int64_t, Logged> steps;
  std::ifstream in(run_dir / "metrics.jsonl");
  for (std::string line; std::getline(in, line);) {
    const auto json = nlohmann::json::parse(line);
    steps[json.at("step")] = {json.at("first_sample"), json.at("sample_digest"), json.at("loss")};
  }
  return steps;
}

class LeftOutTest : public testing::Test {
 protected:
  parallel::MpiEnvironment mpi_;
  SharedFolder folder_{mpi_.world()};
};

/// Hash of the samples as a step's digest adds them.
std::string digest_of(const data::SampleProvider& provider, const std::vector<uint64_t>& samples) {
  uint64_t digest = 0;
  data::Sample sample;
  for (const uint64_t index : samples) {
    provider.get(index, sample);
    digest += data::sample_hash(sample);
  }
  return fmt::format("{:016x}", digest);
}

TEST_F(LeftOutTest, StepsHaveTheSamplesThatRemainInEveryLayout) {
  config::RunConfig config = small_config(model::Kind::red);
  config.train.steps = 3;
  ASSERT_EQ(data::parse_sample_ranges("0-2,9,13-30", config.data.skip_samples), "");
  const data::SyntheticProvider provider = small_provider(model::Kind::red);
  const std::vector<std::vector<uint64_t>> expected = {
      {3, 4, 5, 6, 7, 8, 10, 11}, {12, 31, 32, 33, 34, 35, 36, 37}, {38, 39, 40, 41, 42, 43, 44, 45}};
  int number = 0;
  for (const parallel::Layout& layout : layouts(mpi_.size(), model::Kind::red)) {
    SCOPED_TRACE(layout.to_string());
    const std::filesystem::path dir = folder_.path() / fmt::format("kept-{}", number++);
    run(mpi_.world(), layout, config, dir);
    folder_.barrier();
    const auto steps = logged_steps(dir);
    EXPECT_EQ(steps.size(), expected.size());
    for (const auto& [step, logged] : steps) {
      EXPECT_EQ(logged.first_sample, expected[step - 1].front());
      EXPECT_EQ(logged.digest, digest_of(provider, expected[step - 1])) << "step " << step;
    }
    EXPECT_EQ(checkpoint::read_metadata(dir / "checkpoints" / "step-00000003").sample_cursor, 46U);
    folder_.barrier();
  }
}

// What is left out may be told when a run goes on, and what lies behind it is not touched.
TEST_F(LeftOutTest, AResumeMayLeaveOutWhatLiesAhead) {
  config::RunConfig config = small_config(model::Kind::dec);
  const parallel::Layout layout{mpi_.size(), 1, 0, 1};
  ASSERT_EQ(data::parse_sample_ranges("24-31", config.data.skip_samples), "");
  run(mpi_.world(), layout, config, folder_.path() / "whole");
  config::RunConfig half = config;
  half.train.steps = 2;
  half.data.skip_samples = {};
  run(mpi_.world(), layout, half, folder_.path() / "resumed");
  config.data.skip_samples.add(0, 3);  // of the past: of no effect
  run(mpi_.world(), layout, config, folder_.path() / "resumed");
  folder_.barrier();
  const auto whole = logged_steps(folder_.path() / "whole"),
             resumed = logged_steps(folder_.path() / "resumed");
  EXPECT_EQ(whole.size(), 6U);
  for (const auto& [step, logged] : whole) {
    EXPECT_EQ(resumed.at(step).first_sample, logged.first_sample);
    EXPECT_EQ(resumed.at(step).digest, logged.digest);
    EXPECT_EQ(resumed.at(step).loss, logged.loss);
  }
  EXPECT_EQ(whole.at(4).first_sample, 32U);
  EXPECT_EQ(checkpoint_tensors(folder_.path() / "whole"), checkpoint_tensors(folder_.path() / "resumed"));
  folder_.barrier();
}

}  // namespace
}  // namespace red::test
