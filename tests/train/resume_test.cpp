// A resumed run is the run that was not interrupted: N + M steps equal N, stop, resume, M, bit for bit in the
// same layout and within 1e-5 in any other, for parameters, optimizer state and loss.
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>

#include "support/event_reader.hpp"
#include "train/event_file.hpp"
#include "train/small_run.hpp"
#include "train/step_metrics.hpp"

namespace red::test {
namespace {

/// Relative difference in the norm, the largest over all tensors.
double distance(const std::map<std::string, std::vector<float>>& a,
                const std::map<std::string, std::vector<float>>& b) {
  EXPECT_EQ(a.size(), b.size());
  double worst = 0.0;
  for (const auto& [name, values] : a) {
    const auto it = b.find(name);
    EXPECT_TRUE(it != b.end()) << name;
    if (it == b.end()) continue;
    double difference = 0.0, norm = 0.0;
    for (std::size_t i = 0; i < values.size(); ++i) {
      difference += std::pow(static_cast<double>(values[i]) - it->second[i], 2);
      norm += std::pow(static_cast<double>(values[i]), 2);
    }
    if (difference > 0.0) worst = std::max(worst, std::sqrt(difference / norm));
  }
  return worst;
}

class ResumeTest : public testing::Test {
 protected:
  parallel::MpiEnvironment mpi_;
  SharedFolder folder_{mpi_.world()};

  /// From every layout to itself, to the next one, and to one rank alone; how close the latter come: fp32
  /// rounding.
  void check(const config::RunConfig& whole, double tolerance = 1e-5) {
    const auto all = layouts_of(whole);
    for (std::size_t from = 0; from < all.size(); ++from) {
      SCOPED_TRACE("from " + all[from].to_string());
      const std::filesystem::path straight = folder_.path() / fmt::format("straight-{}", from);
      Run expected{run(mpi_.world(), all[from], whole, straight), checkpoint_tensors(straight)};
      const std::filesystem::path half = folder_.path() / fmt::format("half-{}", from);
      config::RunConfig first = whole;
      first.train.steps = 3;
      run(mpi_.world(), all[from], first, half);
      const Run same = resume(whole, half, mpi_.world(), all[from]);
      EXPECT_EQ(same.loss, expected.loss);
      EXPECT_EQ(same.tensors, expected.tensors);
      const parallel::Layout& next = all[(from + 1) % all.size()];
      expect_close(resume(whole, half, mpi_.world(), next), expected, next, tolerance);
      expect_close(resume(whole, half, *alone_, {}), expected, {}, tolerance);
    }
  }

  /// Those that the schedule has something to do in.
  std::vector<parallel::Layout> layouts_of(const config::RunConfig& config) const {
    std::vector<parallel::Layout> all = layouts(mpi_.size(), config.model);
    if (config.num_chunks() > 1)
      std::erase_if(all, [](const parallel::Layout& layout) { return layout.num_stages() == 1; });
    return all;
  }

  struct Run {
    double loss = 0.0;
    std::map<std::string, std::vector<float>> tensors;
  };

  /// The rest of a run, on `world` in a layout, from a copy of what `half` holds; where `world` is each rank
  /// by itself, rank 0 goes on.
  Run resume(const config::RunConfig& whole, const std::filesystem::path& half, parallel::Communicator& world,
             const parallel::Layout& to) {
    const std::filesystem::path dir = folder_.path() / fmt::format("resumed-{}", num_runs_++);
    if (mpi_.rank() == 0) std::filesystem::copy(half, dir, std::filesystem::copy_options::recursive);
    folder_.barrier();
    config::RunConfig rest = whole;
    if (to.num_stages() == 1) rest.pipeline_schedule = parallel::PipelineSchedule::one_forward_one_backward;
    Run result;
    if (world.size() == mpi_.size() || mpi_.rank() == 0) result.loss = run(world, to, rest, dir);
    parallel::Request request = mpi_.world().broadcast(make_tensor(&result.loss, 1, 1), 0);
    mpi_.world().wait(request, "test");
    result.tensors = checkpoint_tensors(dir);
    folder_.barrier();
    return result;
  }

  static void expect_close(const Run& got, const Run& expected, const parallel::Layout& layout,
                           double tolerance) {
    EXPECT_NEAR(got.loss / expected.loss, 1.0, tolerance) << "to " << layout.to_string();
    EXPECT_LT(distance(expected.tensors, got.tensors), tolerance) << "to " << layout.to_string();
  }

 private:
  std::unique_ptr<parallel::Communicator> alone_ = mpi_.world().split(mpi_.rank(), 0, "alone");
  int num_runs_ = 0;
};

TEST_F(ResumeTest, RedLlm) {
  check(small_config(model::Kind::red));
}

TEST_F(ResumeTest, DecLlm) {
  check(small_config(model::Kind::dec));
}

TEST_F(ResumeTest, FactoredStateAndDropout) {
  config::RunConfig config = small_config(model::Kind::red);
  config.train.dropout = 0.1;
  config.optimizer.factored = true;
  config.optimizer.min_dim_to_factor = 16;
  check(config);
}

// Master weights come back whole. In another layout sums are rounded elsewhere, by 2^-9, and where a gradient
// is small Adafactor's first steps take the rounding's sign. Farthest apart are its squared gradients, of
// keys: up to 0.11 with AVX512-BF16's sums of pairs, 0.08 without.
TEST_F(ResumeTest, Bf16) {
  config::RunConfig config = small_config(model::Kind::red);
  config.train.precision = model::Precision::bf16;
  check(config, 2e-1);
}

// And back to one rank, without chunks.
TEST_F(ResumeTest, InterleavedChunks) {
  config::RunConfig config = small_config(model::Kind::red);
  config.model.encoder_layers = config.model.decoder_layers = 7;
  config.pipeline_schedule = parallel::PipelineSchedule::interleaved;
  check(config);
}

TEST_F(ResumeTest, MetricsBehindTheCheckpointAreCalledOff) {
  config::RunConfig config = small_config(model::Kind::dec);
  config.train.steps = 2;
  const parallel::Layout layout{mpi_.size(), 1, 0, 1};
  const std::filesystem::path dir = folder_.path() / "metrics";
  run(mpi_.world(), layout, config, dir);
  if (mpi_.rank() == 0) {
    // A crash after two more steps.
    std::ofstream(dir / "metrics.jsonl", std::ios::app) << "{\"step\":3,\"loss\":1.0}\n{\"step\":4,\"lo";
    train::EventFile events(dir, 2);
    for (const int64_t step : {3, 4}) events.write(step_metrics(step));
  }
  folder_.barrier();
  config.train.steps = 4;
  run(mpi_.world(), layout, config, dir);
  folder_.barrier();
  std::ifstream in(dir / "metrics.jsonl");
  const std::vector<int64_t> expected = {1, 2, 3, 4};
  std::vector<int64_t> steps;
  for (std::string line; std::getline(in, line);) steps.push_back(std::stoi(line.substr(line.find(':') + 1)));
  EXPECT_EQ(steps, expected);
  steps.clear();
  const auto curves = curves_of(dir);
  for (const auto& [step, loss] : curves.at("train/loss")) {
    steps.push_back(step);
    EXPECT_NE(loss, static_cast<float>(step_metrics(3).result.loss)) << "of the crash";
  }
  EXPECT_EQ(steps, expected);
  EXPECT_TRUE(std::filesystem::exists(dir / "metrics.jsonl.after-step-2.removed"));
  folder_.barrier();
}

TEST_F(ResumeTest, AnotherModelIsRefused) {
  config::RunConfig config = small_config(model::Kind::dec);
  config.train.steps = 1;
  const parallel::Layout layout{mpi_.size(), 1, 0, 1};
  run(mpi_.world(), layout, config, folder_.path() / "model");
  config.model.d_ff = 48;
  try {
    run(mpi_.world(), layout, config, folder_.path() / "model");
    ADD_FAILURE() << "resumed a model of another shape";
  } catch (const ConfigError& error) {
    EXPECT_NE(std::string(error.what()).find("model.d_ff = 48, in the checkpoint 40"), std::string::npos)
        << error.what();
  }
  folder_.barrier();
}

}  // namespace
}  // namespace red::test
