// The plan alone: a tiny model's bytes by hand, and what holds for all layouts.
#include "train/memory_plan.hpp"

#include <gtest/gtest.h>

#include <numeric>

#include "train/bubble.hpp"
#include "train/small_run.hpp"

namespace red::test {
namespace {

using train::EngineOptions;
using train::MemoryPlan;
using train::MemoryUse;
using train::plan_memory;

/// d = 4, f = 8, one head of 4, 16 tokens in the vocabulary; micro-batches of one sequence of two tokens.
EngineOptions tiny(model::Kind kind) {
  config::RunConfig config;
  config.model.kind = kind;
  config.model.vocab_size = 16;
  config.model.d_model = 4;
  config.model.d_ff = 8;
  config.model.num_heads = 1;
  config.model.head_dim = 4;
  config.model.encoder_layers = kind == model::Kind::red ? 2 : 0;
  config.model.decoder_layers = kind == model::Kind::red ? 2 : 1;
  config.train.precision = model::Precision::fp32;
  config.train.micro_batch = 1;
  config.train.global_batch = 8;
  return train::training_options(config, {kind == model::Kind::red ? 2 : 0, 2});
}

// An arena gives every tensor a multiple of 64 bytes.
TEST(MemoryPlan, OfATinyModelByHand) {
  const MemoryPlan plan = plan_memory(tiny(model::Kind::dec), {1, 1, 0, 1}, 1);
  ASSERT_EQ(plan.ranks.size(), 1U);
  const train::RankPlan& rank = plan.ranks.front();
  const MemoryUse& use = rank.memory;
  EXPECT_EQ(rank.parameters, 64 + 4 + 4 * 16 + 4 + 3 * 32 + 4);
  // Embedding, gain, query-key-value, output, gain, gate-up, down, gain.
  EXPECT_EQ(use.parameters, 256U + 64 + 192 + 64 + 64 + 256 + 128 + 64);
  EXPECT_EQ(use.gradients, use.parameters);
  // A second moment for each; of eleven logical parameters two sums and a total in fp64; a place for nothing.
  EXPECT_EQ(use.optimizer, use.parameters + 192 + 128 + 64);
  EXPECT_EQ(use.buckets, 0U);
  EXPECT_EQ(use.whole_gradients, 0U);
  EXPECT_EQ(use.tied_embedding, 0U);
  // Nine vectors of the batch; input, log-probability; head: x, inv_rms, gradient; attention:
  // query-key-value (128), x, o, five statistics; feed-forward: x, inv_rms, gate-up (128).
  EXPECT_EQ(plan.slots, std::vector<int>{1});
  EXPECT_EQ(use.activations, 9U * 64 + 2 * 64 + 3 * 64 + (128 + 7 * 64) + (2 * 64 + 128));
  // Three of the forward pass, two gradients of the stream, loss; attention's gradients are the most on top.
  EXPECT_EQ(use.temporaries, 3U * 64 + 2 * 64 + 64 + (128 + 3 * 64));
  EXPECT_EQ(rank.logits, 128U + 64);
  EXPECT_EQ(use.rope, 2U * 2 * 2 * sizeof(float));
  EXPECT_EQ(use.scalars, 128U + 128 + 64);  // sums: 4 and one for each parameter; nine scalars
  EXPECT_GT(use.op_scratch, 0U);
  // Parameters and second moments, each tensor a multiple of 64 bytes here too.
  EXPECT_EQ(use.checkpoint_copy, 2 * use.parameters);
  EXPECT_EQ(use.total(), use.parameters + use.gradients + use.optimizer + use.activations + use.temporaries +
                             use.rope + use.scalars + use.op_scratch + use.checkpoint_copy);
  EXPECT_EQ(rank.checkpoint, 2U * rank.parameters * sizeof(float));
}

TEST(MemoryPlan, StagesHoldWhatIsInFlightAndTheOwnerRoomForTheEmbedding) {
  const MemoryPlan plan = plan_memory(tiny(model::Kind::red), {2, 1, 1, 2}, 1);
  ASSERT_EQ(plan.ranks.size(), 6U);
  EXPECT_EQ(plan.slots, (std::vector<int>{3, 2, 1}));
  for (int rank = 0; rank < 6; ++rank) {
    const std::size_t half_of_the_rows = 8 * 4 * sizeof(float);
    EXPECT_EQ(plan.ranks[rank].memory.tied_embedding, rank >= 4 ? half_of_the_rows : 0) << rank;
    EXPECT_EQ(plan.ranks[rank].at.stage, rank / 2);
    EXPECT_GT(plan.ranks[rank].memory.buckets, 0U);
  }
  EXPECT_EQ(plan.largest_of_stage(1).at.stage, 1);
}

TEST(MemoryPlan, FewMicroBatchesFillFewSlots) {
  EngineOptions options = tiny(model::Kind::red);
  options.max_micro_batches = 1;
  EXPECT_EQ(plan_memory(options, {1, 1, 2, 2}, 1).slots, (std::vector<int>{1, 1, 1, 1}));
  options.checkpoint_copy = false;
  EXPECT_EQ(plan_memory(options, {1, 1, 2, 2}, 1).ranks.front().memory.checkpoint_copy, 0U);
  options.train = false;
  const MemoryUse use = plan_memory(options, {1, 1, 2, 2}, 1).ranks.front().memory;
  EXPECT_EQ(use.gradients + use.optimizer + use.buckets + use.tied_embedding, 0U);
}

TEST(MemoryPlan, ACheckpointHoldsEveryParameterOnceInEveryLayout) {
  for (const model::Kind kind : {model::Kind::red, model::Kind::dec}) {
    config::RunConfig config = small_config(kind);
    config.train.global_batch = 840;  // divides by any number of ranks below 9
    for (int ranks = 1; ranks <= 8; ++ranks) {
      for (const parallel::Layout& layout : layouts(ranks, kind)) {
        SCOPED_TRACE(layout.to_string());
        config.parallel = layout;
        const EngineOptions options = train::training_options(config, {kEncoderLength, kDecoderLength});
        const MemoryPlan plan = plan_memory(options, layout, 1);
        const auto parameters = static_cast<std::size_t>(model::num_parameters(config.model));
        EXPECT_EQ(plan.checkpoint_bytes(), 2 * parameters * sizeof(float));
        EXPECT_EQ(plan.total(), std::accumulate(plan.ranks.begin(), plan.ranks.end(), std::size_t{0},
                                                [](std::size_t sum, const train::RankPlan& rank) {
                                                  return sum + rank.memory.total();
                                                }));
      }
    }
  }
}

TEST(MemoryPlan, BubbleIsTheFormulasForEqualStages) {
  EngineOptions options = tiny(model::Kind::red);
  options.costs = {.encoder_layer = 3.0, .decoder_layer = 3.0};
  options.max_micro_batches = 8;
  EXPECT_NEAR(train::modelled_bubble(options, {1, 1, 2, 2}), 3.0 / 11.0, 1e-12);  // (p - 1) / (m + p - 1)
  EXPECT_EQ(train::modelled_bubble(options, {1, 1, 0, 1}), 0.0);
}

TEST(MemoryPlan, WritesBytesForPeople) {
  EXPECT_EQ(train::bytes_text(0), "0 B");
  EXPECT_EQ(train::bytes_text(1023), "1023 B");
  EXPECT_EQ(train::bytes_text(1536), "1.5 KiB");
  EXPECT_EQ(train::bytes_text((1U << 20) - 1), "1.0 MiB");
  EXPECT_EQ(train::bytes_text(std::size_t{5} << 40), "5.0 TiB");
  const std::string text = train::short_form(plan_memory(tiny(model::Kind::red), {2, 1, 1, 2}, 1));
  EXPECT_NE(text.find("the largest of 6: parameters "), std::string::npos) << text;
}

}  // namespace
}  // namespace red::test
