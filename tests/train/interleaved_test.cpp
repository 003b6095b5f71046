// The interleaved schedule on real ranks: p ranks of v chunks have the bits that 1F1B gives v p ranks of one,
// losses, norms, gradients and parameters, step after step.
#include <gtest/gtest.h>

#include "support/count_allocations.hpp"
#include "train/pipeline_executor.hpp"
#include "train/small_run.hpp"

namespace red::test {
namespace {

using parallel::PipelineSchedule;

constexpr int kSteps = 3;

/// Of the whole model, the same on every rank.
struct Step {
  double loss = 0.0, cross_entropy = 0.0, gradient_norm = 0.0;
  std::map<std::string, std::vector<float>> gradients, parameters;
};

class InterleavedTest : public testing::Test {
 protected:
  parallel::MpiEnvironment mpi_;
  // One library on all ranks: each would choose its own, and layers are on other ranks in the two runs.
  Stream stream_{1, 0, GemmChoice::plain};

  /// A whole tensor of which ranks have parts: zeros from those that do not hold or count an element.
  std::map<std::string, std::vector<float>> whole_tensors(const train::Engine& engine,
                                                          const config::RunConfig& config,
                                                          Tensor optim::ParameterShard::*part) {
    std::map<std::string, std::vector<float>> tensors;
    for (const model::ParameterSpec& spec : model::parameter_specs(config.model))
      tensors[spec.name].resize(spec.size());
    for (const optim::ParameterShard& shard : engine.shards().shards()) {
      if (!shard.counted) continue;
      const auto& [spec, region, weight] = *shard.parameter;
      for (int64_t row = 0; row < shard.rows.count; ++row) {
        const int64_t at = (region.row_begin + shard.rows.begin + row) * spec.cols + region.col_begin;
        const float* values = (shard.*part).row_range(row, 1).as<float>();
        std::copy_n(values, region.num_cols, tensors[spec.name].begin() + at);
      }
    }
    parallel::Communicator& world = engine.mesh().world();
    for (auto& [name, values] : tensors) {
      parallel::Request request = world.all_reduce(
          make_tensor(values.data(), 1, static_cast<int64_t>(values.size())), parallel::ReduceOp::sum);
      world.wait(request, "test");
    }
    return tensors;
  }

  std::vector<Step> train(const config::RunConfig& config, parallel::Communicator& world) {
    parallel::Mesh mesh(config.parallel, world, model::layout_limits(config.model));
    const data::SyntheticProvider provider = small_provider(config.model.kind);
    train::Engine engine(
        train::training_options(config, {provider.max_encoder_length(), provider.max_decoder_length()}), mesh,
        stream_);
    engine.initialize_parameters();
    train::BatchLoader loader(provider, train::decoder_positions(config.model), config.train.global_batch,
                              config.train.micro_batch, config.parallel.data, mesh.at().data);
    std::vector<Step> steps;
    for (int step = 0; step < kSteps; ++step) {
      const auto batches = loader.load(static_cast<uint64_t>(step * config.train.global_batch));
      const train::StepResult result = engine.train_step(batches, 0.01);
      steps.push_back({result.loss, result.cross_entropy, result.gradient_norm,
                       whole_tensors(engine, config, &optim::ParameterShard::gradient),
                       whole_tensors(engine, config, &optim::ParameterShard::weight)});
    }
    const int64_t news = num_allocations();
    const auto batches = loader.load(0);
    const int64_t of_loader = num_allocations() - news;
    engine.train_step(batches, 0.01);
    EXPECT_EQ(num_allocations() - news, of_loader) << "allocations in a step";
    // Fewer micro-batches than planned, and forward passes alone, in the same slots.
    EXPECT_TRUE(engine.train_step(std::span(batches).first(1), 0.01).applied);
    const std::span<const float> scores = engine.score(batches.front());
    EXPECT_EQ(scores.empty(), !engine.stages().has_head());
    for (const float score : scores) EXPECT_LT(score, 0.0F);
    stream_.set_progress_hook({});
    return steps;
  }

  static config::RunConfig config_for(model::Kind kind, const parallel::Layout& layout, int virtual_stages,
                                      int num_micro_batches) {
    config::RunConfig config = small_config(kind);
    // Odd, and not a multiple: chunks are uneven.
    config.model.encoder_layers = kind == model::Kind::red ? layout.encoder_stages * virtual_stages + 1 : 0;
    config.model.decoder_layers = layout.decoder_stages * virtual_stages + 1;
    config.train.global_batch = static_cast<int64_t>(num_micro_batches) * layout.data;
    config.parallel = layout;
    return config;
  }

  /// `small` of v chunks on part of the ranks against v times as many stages on all of them.
  void check(model::Kind kind, const parallel::Layout& small, int virtual_stages, int num_micro_batches) {
    config::RunConfig config = config_for(kind, small, virtual_stages, num_micro_batches);
    config.parallel.encoder_stages *= virtual_stages;
    config.parallel.decoder_stages *= virtual_stages;
    const std::vector<Step> expected = train(config, mpi_.world());
    config.parallel = small;
    config.pipeline_schedule = PipelineSchedule::interleaved;
    config.virtual_stages = virtual_stages;
    const std::unique_ptr<parallel::Communicator> part =
        mpi_.world().split(mpi_.world().rank() / small.num_ranks(), mpi_.world().rank(), "part");
    const std::vector<Step> got = train(config, *part);
    // The only decoder rank holds one copy of the embedding for the head and for the decoder's input. Their
    // gradients, which ranks of their own add up apart, add up in one, in another order: the embedding's
    // gradient, and with it all behind the first step, agree to fp32 rounding only.
    const bool one_copy = small.decoder_stages == 1;
    for (int step = 0; step < (one_copy ? 1 : kSteps); ++step) {
      SCOPED_TRACE(fmt::format("step {}", step));
      EXPECT_EQ(got[step].loss, expected[step].loss);
      EXPECT_EQ(got[step].cross_entropy, expected[step].cross_entropy);
      if (!one_copy) {
        EXPECT_EQ(got[step].gradient_norm, expected[step].gradient_norm);
      }
      for (const auto& [name, values] : expected[step].gradients) {
        if (one_copy && name == "embedding.weight") continue;
        EXPECT_EQ(got[step].gradients.at(name), values) << "gradient of " << name;
        if (one_copy) continue;  // clipped by another norm
        EXPECT_EQ(got[step].parameters.at(name), expected[step].parameters.at(name)) << name;
      }
    }
    // 1e-4: a thousand fp32 roundings of a loss of about 4, after steps whose sign a rounding may decide.
    EXPECT_NEAR(got.back().loss / expected.back().loss, 1.0, 1e-4);
  }
};

TEST_F(InterleavedTest, HasTheBitsOf1F1BOnAsManyRanksAsChunks) {
  int num_pipelines = 0;
  for (const int virtual_stages : {2, 3}) {
    if (mpi_.size() % virtual_stages != 0) continue;
    for (const model::Kind kind : {model::Kind::red, model::Kind::dec}) {
      config::RunConfig any = small_config(kind);
      any.model.encoder_layers = kind == model::Kind::red ? 16 : 0;
      any.model.decoder_layers = 16;
      for (const parallel::Layout& layout : layouts(mpi_.size() / virtual_stages, any.model)) {
        if (layout.num_stages() == 1) continue;
        for (const int num_micro_batches :
             mpi_.size() < 8 ? std::vector{1, 2, 3, 5, 8} : std::vector{1, 3, 8}) {
          SCOPED_TRACE(fmt::format("{}, {} chunks, {} micro-batches", layout.to_string(), virtual_stages,
                                   num_micro_batches));
          check(kind, layout, virtual_stages, num_micro_batches);
        }
        ++num_pipelines;
      }
    }
  }
  EXPECT_GE(num_pipelines, 2);
}

}  // namespace
}  // namespace red::test
