// What travels under computation, in layouts with several data ranks, schedules and precisions: when ranks
// wait changes no bit, and whoever looks at weights behind a step sees all of them.
#include <gtest/gtest.h>

#include "support/backend.hpp"
#include "train/small_run.hpp"

namespace red::test {
namespace {

using parallel::PipelineSchedule;

constexpr int kSteps = 4;

struct Outcome {
  std::vector<double> losses, norms;
  std::vector<std::vector<float>> own;      ///< rows, as the optimizer has them
  std::vector<std::vector<float>> weights;  ///< whole, as layers have them
  std::vector<float> scores;

  bool operator==(const Outcome&) const = default;
};

class OverlapTest : public testing::Test {
 protected:
  OverlapTest() { train::agree_on_gemm(mpi_.world(), stream_); }

  parallel::MpiEnvironment mpi_;
  Stream stream_{1};

  struct Setup {
    Setup(parallel::MpiEnvironment& mpi, Stream& stream, const config::RunConfig& run)
        : config(run),
          mesh(config.parallel, mpi.world(), model::layout_limits(config.model)),
          provider(small_provider(config.model.kind)),
          engine(options(), mesh, stream),
          loader(provider, train::decoder_positions(config.model), config.train.global_batch,
                 config.train.micro_batch, config.parallel.data, mesh.at().data) {
      engine.initialize_parameters();
    }
    train::EngineOptions options() const {
      train::EngineOptions options =
          train::training_options(config, {provider.max_encoder_length(), provider.max_decoder_length()});
      options.buckets.num_bytes = 6000;  // several for a layer
      return options;
    }
    std::span<const data::MicroBatch> batches(int step) {
      return loader.load(static_cast<uint64_t>(step * config.train.global_batch));
    }
    bool gathers() const { return engine.shards().gathering(); }

    config::RunConfig config;
    parallel::Mesh mesh;
    data::SyntheticProvider provider;
    train::Engine engine;
    train::BatchLoader loader;
  };

  config::RunConfig config_for(model::Kind kind, const parallel::Layout& layout) {
    config::RunConfig config = small_config(kind);
    config.parallel = layout;
    config.train.global_batch = 3 * layout.data;
    return config;
  }

  Outcome train(const config::RunConfig& config) {
    Setup setup(mpi_, stream_, config);
    Outcome outcome;
    for (int step = 0; step < kSteps; ++step) {
      // Once only some data ranks have a pass that waits for weights.
      const bool idle = step == 2 && setup.mesh.at().data == 0;
      const auto batches = setup.batches(step);
      const train::StepResult result =
          setup.engine.train_step(idle ? std::span<const data::MicroBatch>() : batches, 0.01);
      EXPECT_EQ(setup.gathers(), config.transport.overlap);
      outcome.losses.push_back(result.loss);
      outcome.norms.push_back(result.gradient_norm);
    }
    const std::span<const float> scores = setup.engine.score(setup.batches(0).front());
    outcome.scores.assign(scores.begin(), scores.end());
    EXPECT_FALSE(setup.gathers());
    for (const optim::ParameterShard& shard : setup.engine.shards().shards())
      outcome.own.push_back(elements_of<float>(shard.weight));
    for (const model::StoredParameter& p : setup.engine.parameters().parameters()) {
      const Tensor& value = p.weight.value;
      if (value.dtype == DType::fp32) {
        outcome.weights.push_back(elements_of<float>(value));
      } else {
        const std::vector<bf16> rounded = elements_of<bf16>(value);
        outcome.weights.emplace_back(rounded.begin(), rounded.end());
      }
    }
    stream_.set_progress_hook({});
    return outcome;
  }
};

TEST_F(OverlapTest, ChangesNoBit) {
  constexpr std::array schedules = {PipelineSchedule::one_forward_one_backward,
                                    PipelineSchedule::zero_bubble_h1, PipelineSchedule::interleaved};
  std::size_t number = 0;
  for (const model::Kind kind : {model::Kind::red, model::Kind::dec}) {
    for (const parallel::Layout& layout : layouts(mpi_.size(), kind)) {
      if (layout.data == 1) continue;
      config::RunConfig config = config_for(kind, layout);
      config.train.precision = number % 2 == 0 ? model::Precision::fp32 : model::Precision::bf16;
      config.train.gradient_dtype = number % 3 == 0 ? DType::bf16 : DType::fp32;
      config.optimizer.factored = number % 4 > 1;
      config.optimizer.min_dim_to_factor = 16;
      if (layout.num_stages() > 1) config.pipeline_schedule = schedules[number % schedules.size()];
      if (config.pipeline_schedule == PipelineSchedule::interleaved) {
        config.model.encoder_layers = 2 * layout.encoder_stages;
        config.model.decoder_layers = 2 * layout.decoder_stages;
      }
      ++number;
      SCOPED_TRACE(fmt::format("{}, {}", layout.to_string(), name_of(config.pipeline_schedule)));
      config.transport.overlap = true;
      const Outcome with = train(config);
      config.transport.overlap = false;
      const Outcome without = train(config);
      EXPECT_EQ(with.losses, without.losses);
      EXPECT_EQ(with.norms, without.norms);
      EXPECT_EQ(with.scores, without.scores);
      EXPECT_TRUE(with == without);
    }
  }
  EXPECT_GE(number, 2U);
}

TEST_F(OverlapTest, WhoeverLooksAtWeightsWaitsForThem) {
  using Look = void (*)(Setup&);
  const std::vector<std::pair<const char*, Look>> looks = {
      {"complete_weights", [](Setup& s) { s.engine.complete_weights(); }},
      {"parameters", [](Setup& s) { s.engine.parameters(); }},
      {"stages", [](Setup& s) { s.engine.stages(); }},
      {"checkpoint_shards", [](Setup& s) { s.engine.checkpoint_shards(); }},
      {"copy_checkpoint_shards", [](Setup& s) { s.engine.copy_checkpoint_shards(); }},
      {"score", [](Setup& s) { s.engine.score(s.batches(0).front()); }},
      {"hidden", [](Setup& s) { s.engine.hidden(s.batches(0).front()); }},
      {"gradients", [](Setup& s) { s.engine.gradients(s.batches(0), 0.0); }},
      {"initialize_parameters", [](Setup& s) { s.engine.initialize_parameters(); }},
  };
  Setup setup(mpi_, stream_, config_for(model::Kind::red, {mpi_.size(), 1, 0, 1}));
  for (const auto& [name, look] : looks) {
    EXPECT_FALSE(setup.gathers()) << name;
    setup.engine.train_step(setup.batches(0), 0.01);
    EXPECT_TRUE(setup.gathers()) << name;
    look(setup);
    EXPECT_FALSE(setup.gathers()) << name;
  }
  stream_.set_progress_hook({});
}

// What nobody waited for is waited for when its memory goes.
TEST_F(OverlapTest, AnEngineMayEndBehindAStep) {
  {
    Setup setup(mpi_, stream_, config_for(model::Kind::dec, {mpi_.size(), 1, 0, 1}));
    setup.engine.train_step(setup.batches(0), 0.01);
    EXPECT_TRUE(setup.gathers());
    stream_.set_progress_hook({});
  }
  double one = 1.0;
  parallel::Request request = mpi_.world().all_reduce(make_tensor(&one, 1, 1), parallel::ReduceOp::sum);
  mpi_.world().wait(request, "test");
  EXPECT_EQ(one, mpi_.size());
}

}  // namespace
}  // namespace red::test
