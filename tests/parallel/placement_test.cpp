// Splits by hand, against every possible split, and what is refused.
#include "parallel/placement.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "base/error.hpp"
#include "base/philox.hpp"

namespace red::parallel {
namespace {

std::vector<int64_t> encoder_split(const Placement& placement) {
  std::vector<int64_t> split;
  for (const StagePlacement& stage : placement.stages) {
    if (stage.encoder_layers() > 0) split.push_back(stage.encoder_layers());
  }
  return split;
}

std::vector<int64_t> decoder_split(const Placement& placement) {
  std::vector<int64_t> split;
  for (const StagePlacement& stage : placement.stages) {
    if (stage.decoder_layers() > 0) split.push_back(stage.decoder_layers());
  }
  return split;
}

double heaviest(const Placement& placement, std::size_t begin, std::size_t end) {
  double most = 0.0;
  for (std::size_t i = begin; i < end; ++i) most = std::max(most, placement.stages[i].cost);
  return most;
}

TEST(Placement, OneStageHoldsEverything) {
  const LayerCosts costs{.encoder_layer = 2, .decoder_layer = 3, .encoder_embedding = 0.5, .head = 7};
  const Placement placement =
      place_layers({.has_encoder = true, .encoder_layers = 3, .decoder_layers = 4}, 0, 1, costs);
  ASSERT_EQ(placement.stages.size(), 1U);
  const StagePlacement& stage = placement.stages[0];
  EXPECT_EQ(encoder_split(placement), (std::vector<int64_t>{3}));
  EXPECT_EQ(decoder_split(placement), (std::vector<int64_t>{4}));
  EXPECT_TRUE(stage.has_encoder_embedding && stage.has_encoder_final_norm && stage.has_decoder_embedding &&
              stage.has_head);
  EXPECT_EQ(placement.embedding_holders, std::vector<int>{0});
  EXPECT_EQ(placement.embedding_owner, 0);
  EXPECT_DOUBLE_EQ(stage.cost, 3 * 2 + 4 * 3 + 0.5 + 7);
  EXPECT_DOUBLE_EQ(placement.imbalance(), 1.0);
  EXPECT_EQ(to_string(stage),
            "stage 0: encoder layers 0-2, decoder layers 0-3, embedding, encoder output, head");
}

TEST(Placement, OneEncoderAndOneDecoderStage) {
  const Placement placement =
      place_layers({.has_encoder = true, .encoder_layers = 3, .decoder_layers = 1}, 1, 1);
  ASSERT_EQ(placement.stages.size(), 2U);
  const StagePlacement &encoder = placement.stages[0], &decoder = placement.stages[1];
  EXPECT_TRUE(encoder.has_encoder_embedding && encoder.has_encoder_final_norm);
  EXPECT_FALSE(encoder.has_decoder_embedding || encoder.has_head || encoder.has_decoder_part());
  EXPECT_TRUE(decoder.has_decoder_embedding && decoder.has_head);
  EXPECT_FALSE(decoder.has_encoder_embedding || decoder.has_encoder_final_norm || decoder.has_encoder_part());
  EXPECT_EQ(placement.embedding_holders, (std::vector<int>{0, 1}));
  EXPECT_EQ(placement.embedding_owner, 1);
  EXPECT_DOUBLE_EQ(placement.imbalance(), 1.5);  // 3 and 1 layers
  EXPECT_EQ(to_string(encoder), "stage 0: encoder layers 0-2, embedding, encoder output");
  EXPECT_EQ(to_string(decoder), "stage 1: decoder layer 0, embedding, head");
}

TEST(Placement, TheHeadMakesTheLastStageShorter) {
  // 8 layers and a head as heavy as 2: 10 units over 2 stages.
  const Placement placement = place_layers({.decoder_layers = 8}, 0, 2, {.head = 2.0});
  EXPECT_EQ(decoder_split(placement), (std::vector<int64_t>{5, 3}));
  EXPECT_EQ(placement.embedding_holders, (std::vector<int>{0, 1}));
  EXPECT_EQ(placement.embedding_owner, 1);
}

TEST(Placement, OfEqualSplitsLaterStagesGetMore) {
  EXPECT_EQ(decoder_split(place_layers({.decoder_layers = 5}, 0, 2)), (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(decoder_split(place_layers({.decoder_layers = 7}, 0, 4)), (std::vector<int64_t>{1, 2, 2, 2}));
}

TEST(Placement, UpToThreeHoldersOfTheEmbedding) {
  const Placement placement =
      place_layers({.has_encoder = true, .encoder_layers = 5, .decoder_layers = 9}, 2, 3);
  EXPECT_EQ(placement.embedding_holders, (std::vector<int>{0, 2, 4}));
  EXPECT_EQ(placement.embedding_owner, 4);
  EXPECT_TRUE(placement.stages[1].has_encoder_final_norm);
  EXPECT_FALSE(placement.stages[1].holds_embedding() || placement.stages[3].holds_embedding());
}

// The smallest possible cost of the heaviest stage, by trying every split of `layers` over the stages.
double best_by_search(int64_t layers, int stages, double layer, double first, double last) {
  double best = std::numeric_limits<double>::infinity();
  const std::function<void(int, int64_t, double)> search = [&](int stage, int64_t left, double most) {
    const double fixed = (stage == 0 ? first : 0.0) + (stage == stages - 1 ? last : 0.0);
    if (stage == stages - 1) {
      best = std::min(best, std::max(most, fixed + layer * static_cast<double>(left)));
      return;
    }
    for (int64_t n = 1; left - n >= stages - stage - 1; ++n) {
      search(stage + 1, left - n, std::max(most, fixed + layer * static_cast<double>(n)));
    }
  };
  search(0, layers, 0.0);
  return best;
}

// Every layer is placed once and in order, and no split is better, for all small counts and random costs.
TEST(Placement, NoSplitIsBetter) {
  uint64_t draw = 0;
  const auto random = [&draw](double most) { return most * uniform_float(philox(5, draw++)[0]); };
  for (int encoder_stages = 1; encoder_stages <= 3; ++encoder_stages) {
    for (int decoder_stages = 1; decoder_stages <= 5; ++decoder_stages) {
      for (int64_t layers = std::max(encoder_stages, decoder_stages); layers <= 11; ++layers) {
        const LayerCosts costs{.encoder_layer = 0.1 + random(2),
                               .decoder_layer = 0.1 + random(2),
                               .encoder_embedding = random(1),
                               .decoder_embedding = random(1),
                               .head = random(6)};
        const Placement placement =
            place_layers({.has_encoder = true, .encoder_layers = layers, .decoder_layers = layers},
                         encoder_stages, decoder_stages, costs);
        int64_t encoder_next = 0, decoder_next = 0;
        for (const StagePlacement& stage : placement.stages) {
          const bool is_encoder = stage.stage < encoder_stages;
          ASSERT_EQ(stage.has_encoder_part(), is_encoder);
          ASSERT_EQ(stage.has_decoder_part(), !is_encoder);
          if (is_encoder) {
            ASSERT_EQ(stage.encoder_begin, encoder_next);
            encoder_next = stage.encoder_end;
          } else {
            ASSERT_EQ(stage.decoder_begin, decoder_next);
            decoder_next = stage.decoder_end;
          }
        }
        ASSERT_EQ(encoder_next, layers);
        ASSERT_EQ(decoder_next, layers);
        const auto border = static_cast<std::size_t>(encoder_stages);
        // Sums in another order: fp64 rounding only.
        ASSERT_NEAR(heaviest(placement, 0, border),
                    best_by_search(layers, encoder_stages, costs.encoder_layer, costs.encoder_embedding, 0.0),
                    1e-9);
        ASSERT_NEAR(
            heaviest(placement, border, placement.stages.size()),
            best_by_search(layers, decoder_stages, costs.decoder_layer, costs.decoder_embedding, costs.head),
            1e-9);
      }
    }
  }
}

TEST(Placement, TheUsersOwnSplit) {
  const LayerCounts layers{.has_encoder = true, .encoder_layers = 6, .decoder_layers = 5};
  const Placement placement = place_layers(layers, 2, 2, {}, {.encoder = {5, 1}, .decoder = {1, 4}});
  EXPECT_EQ(encoder_split(placement), (std::vector<int64_t>{5, 1}));
  EXPECT_EQ(decoder_split(placement), (std::vector<int64_t>{1, 4}));
  const Placement half = place_layers(layers, 2, 2, {}, {.encoder = {5, 1}});
  EXPECT_EQ(encoder_split(half), (std::vector<int64_t>{5, 1}));
  EXPECT_EQ(decoder_split(half), (std::vector<int64_t>{2, 3}));
}

void expect_refused(const LayerCounts& layers, int encoder_stages, int decoder_stages,
                    const LayerSplit& split, const std::vector<std::string>& words) {
  try {
    place_layers(layers, encoder_stages, decoder_stages, {}, split);
    ADD_FAILURE() << "accepted; expected a message with " << words.front();
  } catch (const ConfigError& error) {
    for (const std::string& word : words) {
      EXPECT_NE(std::string(error.what()).find(word), std::string::npos) << error.what() << " lacks " << word;
    }
  }
}

TEST(Placement, RefusesWhatDoesNotFit) {
  const LayerCounts red{.has_encoder = true, .encoder_layers = 3, .decoder_layers = 5};
  const LayerCounts dec{.decoder_layers = 5};
  expect_refused(red, 4, 1, {}, {"parallel.encoder_stages = 4", "3 encoder layers", "at most 3"});
  expect_refused(red, 1, 6, {}, {"parallel.decoder_stages = 6", "5 decoder layers", "at most 5"});
  expect_refused(red, 0, 2, {}, {"parallel.encoder_stages = 0", "parallel.decoder_stages = 2"});
  expect_refused(red, 1, 0, {}, {"parallel.decoder_stages = 0"});
  expect_refused(dec, 1, 1, {}, {"parallel.encoder_stages = 1", "DecLLM"});
  expect_refused(red, 1, 2, {.decoder = {5}}, {"parallel.decoder_split = 5:", "One that works: 2,3"});
  expect_refused(red, 1, 2, {.decoder = {3, 3}}, {"parallel.decoder_split = 3,3:", "6 layers", "2,3"});
  expect_refused(red, 1, 2, {.decoder = {5, 0}}, {"parallel.decoder_split = 5,0:", "positive"});
  expect_refused(red, 1, 2, {.decoder = {6, -1}}, {"parallel.decoder_split = 6,-1:", "positive"});
  expect_refused(red, 2, 1, {.encoder = {1, 1}}, {"parallel.encoder_split = 1,1:", "One that works: 1,2"});
  expect_refused(dec, 0, 1, {.encoder = {1}}, {"parallel.encoder_split = 1:", "no stages"});
}

// Chunks go round the stages; layers run on from one virtual stage to the next.
TEST(PlaceLayers, ChunksGoRoundTheStages) {
  const Placement placement =
      place_layers({true, 4, 5}, {.encoder_stages = 2, .decoder_stages = 2, .virtual_stages = 2});
  ASSERT_EQ(placement.stages.size(), 8U);
  EXPECT_EQ(to_string(placement.stages[0]), "stage 0: encoder layer 0, embedding");
  EXPECT_EQ(to_string(placement.stages[1]), "stage 1: encoder layer 1");
  EXPECT_EQ(to_string(placement.stages[2]), "stage 0: encoder layer 2");
  EXPECT_EQ(to_string(placement.stages[3]), "stage 1: encoder layer 3, encoder output");
  EXPECT_EQ(to_string(placement.stages[4]), "stage 2: decoder layer 0, embedding");
  EXPECT_EQ(to_string(placement.stages[7]), "stage 3: decoder layers 3-4, head");
  EXPECT_EQ(placement.embedding_holders, (std::vector<int>{0, 2, 3}));
  EXPECT_EQ(placement.embedding_owner, 3);
  EXPECT_EQ(placement.chunks_of(3).size(), 2U);
  EXPECT_EQ(placement.chunks_of(3)[1].chunk, 1);
  EXPECT_DOUBLE_EQ(placement.cost_of(3), 3.0);
  EXPECT_DOUBLE_EQ(placement.imbalance(), 3.0 * 4 / 9);
}

// The split is that of as many stages as there are virtual ones.
TEST(PlaceLayers, ChunksAreSplitAsStagesAre) {
  const LayerCosts costs{.decoder_layer = 1.5, .head = 2.0};
  const Placement chunks =
      place_layers({true, 7, 9}, {.encoder_stages = 1, .decoder_stages = 2, .virtual_stages = 3}, costs);
  const Placement stages = place_layers({true, 7, 9}, 3, 6, costs);
  ASSERT_EQ(chunks.stages.size(), stages.stages.size());
  for (std::size_t i = 0; i < stages.stages.size(); ++i) {
    EXPECT_EQ(chunks.stages[i].encoder_begin, stages.stages[i].encoder_begin);
    EXPECT_EQ(chunks.stages[i].encoder_end, stages.stages[i].encoder_end);
    EXPECT_EQ(chunks.stages[i].decoder_begin, stages.stages[i].decoder_begin);
    EXPECT_EQ(chunks.stages[i].decoder_end, stages.stages[i].decoder_end);
  }
}

// One decoder stage holds the decoder's embedding and the head in different chunks: one copy.
TEST(PlaceLayers, OneCopyOfTheEmbeddingForAllChunks) {
  const Placement placement =
      place_layers({true, 2, 2}, {.encoder_stages = 1, .decoder_stages = 1, .virtual_stages = 2});
  EXPECT_EQ(placement.embedding_holders, (std::vector<int>{0, 1}));
  EXPECT_EQ(placement.embedding_owner, 1);
  EXPECT_TRUE(own_embedding(placement.chunks_of(1)));
  EXPECT_FALSE(own_embedding(placement.chunks_of(0)));
  EXPECT_TRUE(hold_embedding(placement.chunks_of(0)));
}

TEST(PlaceLayers, RefusesMoreChunksThanLayers) {
  try {
    place_layers({false, 0, 3}, {.decoder_stages = 2, .virtual_stages = 2});
    FAIL();
  } catch (const ConfigError& error) {
    EXPECT_STREQ(
        error.what(),
        "parallel.decoder_stages = 2 of parallel.virtual_stages = 2: the model has 3 decoder layers "
        "(model.decoder_layers), and each chunk of a stage needs at least one; use at most 1 stages");
  }
}

}  // namespace
}  // namespace red::parallel
