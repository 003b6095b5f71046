// Every schedule on real ranks: losses, gradients and parameters have the bits that 1F1B gives them, in every
// layout with more than one stage, and nothing is allocated in a step.
#include "train/pipeline_executor.hpp"

#include <gtest/gtest.h>

#include "parallel/message_tags.hpp"
#include "parallel/traced_communicator.hpp"
#include "support/count_allocations.hpp"
#include "train/small_run.hpp"

namespace red::test {
namespace {

using model::AttentionOutputNorm;
using parallel::PipelineSchedule;

constexpr int kSteps = 3;

/// What one rank has after each step; compared bit for bit.
struct Outcome {
  std::vector<double> losses, norms;
  std::vector<std::vector<float>> gradients, parameters;
  std::size_t activations = 0;  ///< bytes
};

std::vector<float> values_of(const Tensor& x) {
  std::vector<float> values;
  for (int64_t i = 0; i < x.rows; ++i) {
    const float* row = x.row_range(i, 1).as<float>();
    values.insert(values.end(), row, row + x.cols);
  }
  return values;
}

class PipelineExecutorTest : public testing::Test {
 protected:
  PipelineExecutorTest() { train::agree_on_gemm(mpi_.world(), stream_); }

  parallel::MpiEnvironment mpi_;
  Stream stream_{1};

  Outcome train(config::RunConfig config, PipelineSchedule schedule) {
    config.pipeline_schedule = schedule;
    parallel::Mesh mesh(config.parallel, mpi_.world(), model::layout_limits(config.model));
    const data::SyntheticProvider provider = small_provider(config.model.kind);
    train::Engine engine(
        train::training_options(config, {provider.max_encoder_length(), provider.max_decoder_length()}), mesh,
        stream_);
    engine.initialize_parameters();
    train::BatchLoader loader(provider, train::decoder_positions(config.model), config.train.global_batch,
                              config.train.micro_batch, config.parallel.data, mesh.at().data);
    Outcome outcome;
    for (int step = 0; step < kSteps; ++step) {
      const auto batches = loader.load(static_cast<uint64_t>(step * config.train.global_batch));
      const train::StepResult result = engine.train_step(batches, 0.01);
      outcome.losses.push_back(result.loss);
      outcome.norms.push_back(result.gradient_norm);
      for (const optim::ParameterShard& shard : engine.shards().shards()) {
        outcome.gradients.push_back(values_of(shard.gradient));
        outcome.parameters.push_back(values_of(shard.weight));
      }
    }
    outcome.activations = engine.memory().activations;
    const int64_t news = num_allocations();
    const auto batches = loader.load(0);
    const int64_t of_loader = num_allocations() - news;
    engine.train_step(batches, 0.01);
    EXPECT_EQ(num_allocations() - news, of_loader) << "allocations in a step";
    stream_.set_progress_hook({});
    return outcome;
  }

  void expect_the_bits_of_1f1b(const config::RunConfig& config) {
    const Outcome expected = train(config, PipelineSchedule::one_forward_one_backward);
    const Outcome got = train(config, PipelineSchedule::zero_bubble_h1);
    EXPECT_EQ(got.losses, expected.losses);
    EXPECT_EQ(got.norms, expected.norms);
    EXPECT_EQ(got.gradients, expected.gradients);
    EXPECT_EQ(got.parameters, expected.parameters);
    const int stage = parallel::coordinates_of(config.parallel, mpi_.world().rank()).stage;
    if (stage == 0) {
      EXPECT_EQ(got.activations, expected.activations);
    } else {
      EXPECT_GT(got.activations, expected.activations);  // it did run with the passes apart
    }
  }

  void check_recomputation(config::RunConfig config, PipelineSchedule schedule) {
    const Outcome kept = train(config, schedule);
    std::size_t more = kept.activations;
    for (const auto& [recompute, num_layers] : {std::pair{model::Recompute::selective, 0},
                                                {model::Recompute::full, 1},
                                                {model::Recompute::full, 0}}) {
      SCOPED_TRACE(fmt::format("{}, {} layers", model::name_of(recompute), num_layers));
      config.train.recompute = recompute;
      config.train.recompute_layers = num_layers;
      const Outcome again = train(config, schedule);
      EXPECT_EQ(again.losses, kept.losses);
      EXPECT_EQ(again.norms, kept.norms);
      EXPECT_EQ(again.gradients, kept.gradients);
      EXPECT_EQ(again.parameters, kept.parameters);
      EXPECT_LT(again.activations, kept.activations);
      if (num_layers == 0) {
        EXPECT_LT(again.activations, more);  // full keeps less than selective
        more = again.activations;
      }
    }
  }
};

TEST_F(PipelineExecutorTest, ZeroBubbleH1HasTheBitsOf1F1B) {
  int num_layouts = 0;
  for (const auto& [kind, output_norm] : {std::pair{model::Kind::dec, AttentionOutputNorm::none},
                                          {model::Kind::red, AttentionOutputNorm::none},
                                          {model::Kind::red, AttentionOutputNorm::head},
                                          {model::Kind::red, AttentionOutputNorm::concat},
                                          {model::Kind::red, AttentionOutputNorm::after_wo}}) {
    config::RunConfig config = small_config(kind);
    config.model.attention_output_norm = output_norm;
    for (const parallel::Layout& layout : layouts(mpi_.size(), config.model)) {
      if (layout.num_stages() == 1) continue;
      config.parallel = layout;
      for (const int64_t num_micro_batches : {2, 7}) {  // fewer than stages, and more
        config.train.precision = num_micro_batches == 2 ? model::Precision::bf16 : model::Precision::fp32;
        config.train.dropout = num_micro_batches == 2 ? 0.0 : 0.1;
        SCOPED_TRACE(fmt::format("{}, {} micro-batches, norm {}", layout.to_string(), num_micro_batches,
                                 static_cast<int>(output_norm)));
        config.train.global_batch = num_micro_batches * layout.data;
        expect_the_bits_of_1f1b(config);
      }
      ++num_layouts;
    }
  }
  EXPECT_GE(num_layouts, mpi_.size() == 1 ? 0 : 5);
}

// What is made again is what was kept; with less memory for it. In layouts of one stage and of several, and
// in chunks of layers.
TEST_F(PipelineExecutorTest, RecomputationHasTheBitsOfKeeping) {
  for (const auto& [kind, precision, schedule] :
       {std::tuple{model::Kind::red, model::Precision::fp32, PipelineSchedule::one_forward_one_backward},
        {model::Kind::red, model::Precision::bf16, PipelineSchedule::one_forward_one_backward},
        {model::Kind::dec, model::Precision::fp32, PipelineSchedule::one_forward_one_backward},
        {model::Kind::red, model::Precision::bf16, PipelineSchedule::interleaved},
        {model::Kind::dec, model::Precision::fp32, PipelineSchedule::interleaved}}) {
    config::RunConfig config = small_config(kind);
    config.train.precision = precision;
    config.train.dropout = precision == model::Precision::bf16 ? 0.1 : 0.0;
    if (schedule == PipelineSchedule::interleaved) {
      config.model.encoder_layers = kind == model::Kind::red ? 13 : 0;
      config.model.decoder_layers = 17;
    }
    for (const parallel::Layout& layout : layouts(mpi_.size(), config.model)) {
      if (schedule == PipelineSchedule::interleaved && layout.num_stages() == 1) continue;
      SCOPED_TRACE(layout.to_string());
      config.parallel = layout;
      config.train.global_batch = 3 * layout.data;
      check_recomputation(config, schedule);
    }
  }
}

// What the next pass needs from another stage is received from before the pass that comes first.
TEST_F(PipelineExecutorTest, ReceivesForTheNextPassUnderThisOne) {
  if (mpi_.size() == 1) return;
  constexpr int num_micro_batches = 5;
  for (const auto& [kind, tag] :
       {std::pair{model::Kind::dec, parallel::kTagActivation}, {model::Kind::red, parallel::kTagMemory}}) {
    config::RunConfig config = small_config(kind);
    const int encoder_stages = kind == model::Kind::red ? 1 : 0;
    config.parallel = {1, 1, encoder_stages, mpi_.size() - encoder_stages};
    config.model.decoder_layers = 4;
    config.train.global_batch = num_micro_batches;
    parallel::TraceLog log;
    parallel::TracedCommunicator world(mpi_.world(), log);
    parallel::Mesh mesh(config.parallel, world, model::layout_limits(config.model));
    const data::SyntheticProvider provider = small_provider(kind);
    train::Engine engine(
        train::training_options(config, {provider.max_encoder_length(), provider.max_decoder_length()}), mesh,
        stream_);
    engine.initialize_parameters();
    engine.trace(&log);
    train::BatchLoader loader(provider, train::decoder_positions(config.model), num_micro_batches, 1, 1, 0);
    log.start();
    engine.train_step(loader.load(0), 0.01);
    log.stop();
    int num_received = 0;
    for (const parallel::TraceTransfer& message : log.transfers()) {
      const std::string id = fmt::format("tag {} number ", tag);
      const std::size_t at = message.message.find(id);
      if (message.sends || at == std::string::npos) continue;
      const int micro_batch = std::stoi(message.message.substr(at + id.size()));
      const std::string before = fmt::format("forward of micro-batch {}", std::max(0, micro_batch - 1));
      for (const parallel::TraceSlice& slice : log.slices()) {
        if (slice.name == before) {
          EXPECT_LT(message.begin, slice.begin) << message.message;
        }
      }
      ++num_received;
    }
    EXPECT_EQ(num_received, mesh.at().stage == 0 ? 0 : num_micro_batches);
    stream_.set_progress_hook({});
  }
}

// Sums over layers, of which the gradient's norm is one, have the order of the parameters.
TEST_F(PipelineExecutorTest, BitsDoNotDependOnWhoHoldsWhichLayer) {
  config::RunConfig config = small_config(model::Kind::dec);
  config.model.decoder_layers = 6;
  config.parallel = {1, 1, 0, mpi_.size()};
  const auto with_heavy_stage = [&](int stage) {
    config.split.decoder.assign(mpi_.size(), 1);
    config.split.decoder[stage] = 7 - mpi_.size();
    return train(config, PipelineSchedule::one_forward_one_backward);
  };
  const Outcome first = with_heavy_stage(0), last = with_heavy_stage(mpi_.size() - 1);
  EXPECT_EQ(first.losses, last.losses);
  EXPECT_EQ(first.norms, last.norms);
}

}  // namespace
}  // namespace red::test
