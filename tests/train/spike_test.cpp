// A run whose loss jumps goes back to an earlier checkpoint and leaves the samples out, and is from then on
// the run that never saw them: in every layout, and where it is interrupted at any point.
#include <gtest/gtest.h>

#include "base/philox.hpp"
#include "train/run_returns.hpp"
#include "train/small_run.hpp"

namespace red::test {
namespace {

constexpr int64_t kSteps = 40, kBatch = 8;

/// Every target is the same, which is soon learnt; but of samples first ... last targets are random.
class JumpyProvider final : public data::SampleProvider {
 public:
  JumpyProvider(uint64_t first, uint64_t last) : first_(first), last_(last) {}
  void get(uint64_t index, data::Sample& sample) const override {
    plain_.get(index, sample);
    if (index >= first_ && index <= last_) return;
    std::fill(sample.decoder_target.begin(), sample.decoder_target.end(), 5);
    std::fill(sample.decoder_input.begin(), sample.decoder_input.end(), 5);
  }
  int64_t max_encoder_length() const override { return plain_.max_encoder_length(); }
  int64_t max_decoder_length() const override { return plain_.max_decoder_length(); }
  std::vector<std::string> source_names() const override { return plain_.source_names(); }

 private:
  data::SyntheticProvider plain_ = small_provider(model::Kind::dec);
  uint64_t first_, last_;
};

struct Died {};

class SpikeTest : public testing::Test {
 protected:
  /// High losses in steps 31 and 32; samples of steps 30 to 32 are left out, and the run goes back to 25.
  SpikeTest() : provider_(30 * kBatch, 32 * kBatch - 1) {
    config_ = small_config(model::Kind::dec);
    config_.train.steps = kSteps;
    config_.train.global_batch = kBatch;
    config_.schedule.kind = optim::ScheduleKind::constant;
    config_.schedule.peak = 0.03;
    config_.train.spike_threshold = 6.0;
    config_.train.spike_window = 8;
    config_.train.spike_steps = 2;
    config_.train.spike_back = 1;
    config_.checkpoint.every = 5;
  }

  struct Outcome {
    std::map<std::string, std::vector<float>> tensors;
    double loss = 0.0;
    std::vector<train::RunReturn> returns;
  };

  /// As `redllm train` does it. `returned` may throw.
  Outcome train(config::RunConfig config, const parallel::Layout& layout, const std::string& name,
                const data::SampleProvider& provider, const std::function<void()>& returned = {}) {
    const std::filesystem::path dir = folder_.path() / name;
    parallel::Communicator& world = mpi_.world();
    config.parallel = layout;
    config.train.run_dir = dir;
    Stream stream(1);
    train::agree_on_gemm(world, stream);
    parallel::Mesh mesh(layout, world, model::layout_limits(config.model));
    config::Loaded loaded;
    loaded.config = config;
    train::TrainerInputs inputs{config,
                                config::print_effective(loaded),
                                provider,
                                "",
                                {},
                                train::checkpoint_to_resume(dir, "auto", world),
                                train::returns_so_far(dir, world)};
    inputs.returned = [&](const train::RunReturn& r) {
      if (world.rank() == 0) train::log_return(dir, "test", r);
      folder_.barrier();
      if (returned) returned();
    };
    Outcome outcome;
    train::Trainer trainer(inputs, mesh, stream);
    trainer.run();
    folder_.barrier();
    outcome.tensors = checkpoint_tensors(dir);
    outcome.loss = trainer.last_loss();
    outcome.returns = train::read_returns(dir);
    folder_.barrier();
    return outcome;
  }
  Outcome train(const config::RunConfig& config, const std::string& name) {
    return train(config, {mpi_.size(), 1, 0, 1}, name, provider_);
  }
  Outcome without_those_samples(const parallel::Layout& layout) {
    config::RunConfig config = config_;
    config.data.skip_samples.add(29 * kBatch, 32 * kBatch - 1);
    Outcome outcome = train(config, layout, fmt::format("without-{}", number_++), provider_);
    EXPECT_TRUE(outcome.returns.empty());
    return outcome;
  }
  static void expect_one_return(const Outcome& outcome) {
    ASSERT_EQ(outcome.returns.size(), 1U);
    EXPECT_EQ(outcome.returns[0].step, 32);
    EXPECT_EQ(outcome.returns[0].to_step, 25);
    EXPECT_EQ(outcome.returns[0].left_out.to_string(), "232-255");
    EXPECT_NE(outcome.returns[0].reason.find("in 2 steps in a row"), std::string::npos)
        << outcome.returns[0].reason;
  }

  parallel::MpiEnvironment mpi_;
  SharedFolder folder_{mpi_.world()};
  config::RunConfig config_;
  JumpyProvider provider_;
  int number_ = 0;
};

TEST_F(SpikeTest, GoesBackAndIsTheRunWithoutThoseSamplesInEveryLayout) {
  int number = 0;
  for (const parallel::Layout& layout : layouts(mpi_.size(), config_.model)) {
    SCOPED_TRACE(layout.to_string());
    const std::string name = fmt::format("spike-{}", number++);
    const Outcome got = train(config_, layout, name, provider_);
    expect_one_return(got);
    const Outcome expected = without_those_samples(layout);
    EXPECT_EQ(got.loss, expected.loss);
    EXPECT_EQ(got.tensors, expected.tensors);
    EXPECT_TRUE(
        std::filesystem::exists(folder_.path() / name / "checkpoints" / "step-00000030.called-off-1"));
    EXPECT_TRUE(std::filesystem::exists(folder_.path() / name / "metrics.jsonl.after-step-25.removed"));
    folder_.barrier();
  }
}

TEST_F(SpikeTest, OffItGoesOn) {
  config_.train.spike_threshold = 0.0;
  EXPECT_TRUE(train(config_, "off").returns.empty());
}

TEST_F(SpikeTest, AnInterruptionAnywhereChangesNothing) {
  const Outcome expected = without_those_samples({mpi_.size(), 1, 0, 1});
  for (const int64_t end : {23, 31, 34}) {  // before it, between the two high losses, and behind the return
    SCOPED_TRACE(end);
    config::RunConfig first = config_;
    first.train.steps = end;
    const std::string name = fmt::format("cut-{}", end);
    train(first, name);
    const Outcome got = train(config_, name);
    expect_one_return(got);
    EXPECT_EQ(got.tensors, expected.tensors);
  }
}

TEST_F(SpikeTest, ARunThatDiesWhileItGoesBackKnowsTheSamples) {
  const parallel::Layout layout{mpi_.size(), 1, 0, 1};
  EXPECT_THROW(train(config_, layout, "dies", provider_, [] { throw Died(); }), Died);
  const Outcome got = train(config_, "dies");
  expect_one_return(got);
  EXPECT_EQ(got.tensors, without_those_samples(layout).tensors);
}

TEST_F(SpikeTest, ACheckpointKnowsThemWhereTheRunsFolderIsAnother) {
  train(config_, "there");
  folder_.barrier();
  const checkpoint::Metadata saved =
      checkpoint::read_metadata(folder_.path() / "there" / "checkpoints" / "step-00000040");
  EXPECT_EQ(train::left_out_of(saved).to_string(), "232-255");
}

TEST_F(SpikeTest, TooManyReturnsEndTheRun) {
  const JumpyProvider endless(30 * kBatch, data::SampleRanges::kLargest);
  config_.train.max_returns = 2;
  try {
    train(config_, {mpi_.size(), 1, 0, 1}, "endless", endless);
    ADD_FAILURE() << "it went on";
  } catch (const NumericalError& error) {
    EXPECT_NE(std::string(error.what()).find("gone back 2 times already"), std::string::npos) << error.what();
  }
  folder_.barrier();
  EXPECT_EQ(train::read_returns(folder_.path() / "endless").size(), 2U);
  folder_.barrier();
}

TEST_F(SpikeTest, WithoutAnEarlyCheckpointItGoesOn) {
  config_.checkpoint.every = 0;
  const Outcome got = train(config_, "none");
  EXPECT_TRUE(got.returns.empty());
  EXPECT_FALSE(got.tensors.empty());
}

}  // namespace
}  // namespace red::test
