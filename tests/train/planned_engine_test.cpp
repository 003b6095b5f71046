// The plan is what an engine then allocates, to the byte in every layout.
#include <gtest/gtest.h>

#include "train/memory_plan.hpp"
#include "train/small_run.hpp"

namespace red::test {
namespace {

using train::EngineOptions;
using train::MemoryPlan;
using train::MemoryUse;

EngineOptions options_of(const config::RunConfig& config) {
  const data::SyntheticProvider provider = small_provider(config.model.kind);
  return train::training_options(config, {provider.max_encoder_length(), provider.max_decoder_length()});
}

void expect_same(const MemoryUse& planned, const MemoryUse& real) {
  for (const train::MemoryPart& part : train::kMemoryParts)
    EXPECT_EQ(planned.*part.bytes, real.*part.bytes) << part.name;
}

std::size_t bytes_of(const std::vector<checkpoint::Shard>& shards) {
  std::size_t total = 0;
  for (const checkpoint::Shard& shard : shards) total += shard.num_rows * shard.num_cols * sizeof(float);
  return total;
}

class PlannedEngineTest : public testing::Test {
 protected:
  parallel::MpiEnvironment mpi_;

  /// Trains a little, so that arenas and scratch memory are held to their sizes too.
  void check(config::RunConfig config, const parallel::Layout& layout, int num_threads) {
    config.parallel = layout;
    const EngineOptions options = options_of(config);
    const MemoryPlan plan = train::plan_memory(options, layout, num_threads);
    Stream stream(num_threads, 0);
    parallel::Mesh mesh(layout, mpi_.world(), model::layout_limits(config.model));
    train::Engine engine(options, mesh, stream);
    engine.initialize_parameters();
    const train::RankPlan& rank = plan.ranks.at(mpi_.world().rank());
    expect_same(rank.memory, engine.memory());
    EXPECT_EQ(rank.at.stage, mesh.at().stage);
    EXPECT_EQ(rank.checkpoint, bytes_of(engine.checkpoint_shards()));
    const parallel::PipelineShape shape = train::pipeline_shape(options, layout, 1);
    for (int chunk = 0; chunk < engine.stages().num_chunks(); ++chunk) {
      EXPECT_EQ(plan.slots[shape.virtual_stage(mesh.at().stage, chunk)],
                engine.stages().chunk(chunk).num_slots());
    }
    const data::SyntheticProvider provider = small_provider(config.model.kind);
    train::BatchLoader loader(provider, train::decoder_positions(config.model), config.train.global_batch,
                              config.train.micro_batch, layout.data, mesh.at().data);
    engine.train_step(loader.load(0), 0.01);
    expect_same(rank.memory, engine.memory());
    EXPECT_LE(stream.scratch().peak(), rank.memory.op_scratch);
  }

  void check_every_layout(const std::function<void(config::RunConfig&)>& change, int num_threads = 1) {
    for (const model::Kind kind : {model::Kind::red, model::Kind::dec}) {
      for (const parallel::Layout& layout : layouts(mpi_.size(), kind)) {
        SCOPED_TRACE(layout.to_string());
        config::RunConfig config = small_config(kind);
        change(config);
        check(config, layout, num_threads);
      }
    }
  }
};

TEST_F(PlannedEngineTest, IsWhatAnEngineAllocates) {
  check_every_layout([](config::RunConfig&) {});
}

TEST_F(PlannedEngineTest, KnowsFactoredStateAndOtherBatches) {
  check_every_layout(
      [](config::RunConfig& config) {
        config.optimizer.factored = true;
        config.optimizer.min_dim_to_factor = 8;
        config.train.dropout = 0.1;
        config.train.micro_batch = 2;
        config.train.head_chunk = 5;
      },
      3);
}

TEST_F(PlannedEngineTest, KnowsEveryOutputNorm) {
  for (const auto norm : {model::AttentionOutputNorm::none, model::AttentionOutputNorm::concat,
                          model::AttentionOutputNorm::after_wo}) {
    check_every_layout([norm](config::RunConfig& config) { config.model.attention_output_norm = norm; });
  }
}

TEST_F(PlannedEngineTest, KnowsChunks) {
  for (const model::Kind kind : {model::Kind::red, model::Kind::dec}) {
    for (const int virtual_stages : {2, 3}) {
      config::RunConfig config = small_config(kind);
      config.model.encoder_layers = kind == model::Kind::red ? 11 : 0;
      config.model.decoder_layers = 13;
      config.pipeline_schedule = parallel::PipelineSchedule::interleaved;
      config.virtual_stages = virtual_stages;
      if (virtual_stages == 2) config.train.precision = model::Precision::bf16;
      if (virtual_stages == 3) config.train.recompute = model::Recompute::selective;
      for (const parallel::Layout& layout : layouts(mpi_.size(), config.model)) {
        if (layout.num_stages() == 1 || layout.num_stages() * virtual_stages > 11) continue;
        SCOPED_TRACE(fmt::format("{}, {} chunks", layout.to_string(), virtual_stages));
        check(config, layout, 1);
      }
    }
  }
}

TEST_F(PlannedEngineTest, KnowsRecomputation) {
  for (const auto& [recompute, num_layers] : {std::pair{model::Recompute::selective, 0},
                                              {model::Recompute::full, 0},
                                              {model::Recompute::full, 1}}) {
    check_every_layout([recompute = recompute, num_layers = num_layers](config::RunConfig& config) {
      config.train.recompute = recompute;
      config.train.recompute_layers = num_layers;
    });
  }
}

TEST_F(PlannedEngineTest, KnowsBf16) {
  for (const DType gradients : {DType::fp32, DType::bf16}) {
    check_every_layout(
        [gradients](config::RunConfig& config) {
          config.train.precision = model::Precision::bf16;
          config.train.gradient_dtype = gradients;
        },
        2);
  }
}

TEST_F(PlannedEngineTest, KnowsEvaluation) {
  for (const model::Kind kind : {model::Kind::red, model::Kind::dec}) {
    for (const parallel::Layout& layout : layouts(mpi_.size(), kind)) {
      SCOPED_TRACE(layout.to_string());
      const EngineOptions options =
          train::evaluation_options(small_config(kind), {kEncoderLength, kDecoderLength}, 3, 2);
      Stream stream(2, 0);
      parallel::Mesh mesh(layout, mpi_.world(), model::layout_limits(options.model));
      const train::Engine engine(options, mesh, stream);
      expect_same(train::plan_memory(options, layout, 2).ranks.at(mpi_.world().rank()).memory,
                  engine.memory());
    }
  }
}

}  // namespace
}  // namespace red::test
