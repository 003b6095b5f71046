// The FLOP formula against a case by hand, the paper's models, and pairs counted one by one.
#include "model/cost_model.hpp"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "base/error.hpp"
#include "base/philox.hpp"
#include "model/models.hpp"
#include "model/stage_parameters.hpp"

namespace red::model {
namespace {

// V 67, d 10, f 14, attention width 3 x 6 = 18; 2 encoder and 3 decoder layers; S = 5, T = 3. docs/flops.md
// has the same numbers. Per token: 8 d a + 6 d f = 1440 + 840 = 2280.
TEST(CostModel, RedByHand) {
  const ModelConfig config = tiny_model(Kind::red);
  const Flops visible = forward_flops(config, work_of(5, 3));
  EXPECT_EQ(visible.encoder_layers, 2 * (5 * 2280 + 4 * 18 * 25));
  EXPECT_EQ(visible.decoder_layers, 3 * (3 * 2280 + 4 * 18 * 6  // self-attention: 1 + 2 + 3 pairs
                                         + 4 * 10 * 18 * 3      // cross-attention's query and output
                                         + 4 * 10 * 18 * 5      // its key and value
                                         + 4 * 18 * 15));       // its 3 x 5 pairs
  EXPECT_EQ(visible.head, 2 * 3 * 10 * 67);
  EXPECT_EQ(visible.total(), 72756);
  EXPECT_EQ(training_flops(config, work_of(5, 3)), 3 * 72756);
  const Flops full = forward_flops(config, work_of(5, 3, 0, AttentionCount::full));
  EXPECT_EQ(full.total(), 72756 + 3 * 4 * 18 * 3);  // 9 pairs instead of 6
}

TEST(CostModel, DecByHand) {
  const ModelConfig config = tiny_model(Kind::dec);
  EXPECT_EQ(forward_flops(config, work_of(0, 4)).total(), 3 * (4 * 2280 + 4 * 18 * 10) + 2 * 4 * 10 * 67);
  // The first two tokens see each other: one pair more.
  EXPECT_EQ(work_of(0, 4, 2).decoder_pairs, 11);
  EXPECT_EQ(work_of(0, 4, 4).decoder_pairs, 16);
  EXPECT_EQ(forward_flops(config, work_of(0, 4, 0, AttentionCount::full)).total(),
            3 * (4 * 2280 + 4 * 18 * 16) + 2 * 4 * 10 * 67);
}

double window_flops(const PaperSize& size, Kind kind, AttentionCount count) {
  const Work work = kind == Kind::red ? work_of(1024, 1024, 0, count) : work_of(0, 2048, 0, count);
  return training_flops(paper_model(size, kind), work);
}

// DecLLM over RedLLM per window of 2,048 tokens, with all pairs and with visible pairs, to the digits known.
TEST(CostModel, RatiosOfThePapersModels) {
  const std::vector<std::pair<const char*, const char*>> expected = {
      {"2.43", "2.27"}, {"2.10", "2.02"}, {"2.04", "1.97"}, {"2.18", "2.12"}, {"2.07", "2.02"}};
  for (std::size_t i = 0; i < kPaperSizes.size(); ++i) {
    const auto ratio = [i](AttentionCount count) {
      return fmt::format("{:.2f}", window_flops(kPaperSizes[i], Kind::dec, count) /
                                       window_flops(kPaperSizes[i], Kind::red, count));
    };
    EXPECT_EQ(ratio(AttentionCount::full), expected[i].first) << kPaperSizes[i].name;
    EXPECT_EQ(ratio(AttentionCount::visible), expected[i].second) << kPaperSizes[i].name;
  }
}

TEST(CostModel, PretrainingOf8B) {
  const double windows = 400'000.0 * 2048.0;
  const PaperSize& size = kPaperSizes[4];
  EXPECT_EQ(fmt::format("{:.1e}", windows * window_flops(size, Kind::dec, AttentionCount::full)), "9.3e+22");
  EXPECT_EQ(fmt::format("{:.1e}", windows * window_flops(size, Kind::red, AttentionCount::full)), "4.5e+22");
}

std::vector<int32_t> random_documents(std::size_t length, uint64_t& draw) {
  std::vector<int32_t> documents(length);
  int32_t document = 0;
  for (int32_t& d : documents) d = document += philox(3, draw++)[0] % 4 == 0 ? 1 : 0;
  return documents;
}

// Pairs counted one by one under the masks.
Work count_pairs(const data::Sample& sample) {
  const auto source = static_cast<int64_t>(sample.encoder_input.size());
  const auto target = static_cast<int64_t>(sample.decoder_input.size());
  const auto same = [](const std::vector<int32_t>& rows, const std::vector<int32_t>& columns, int64_t i,
                       int64_t j) {
    return rows.empty() || rows[static_cast<std::size_t>(i)] == columns[static_cast<std::size_t>(j)];
  };
  Work work{.encoder_tokens = source, .decoder_tokens = target};
  for (int64_t i = 0; i < source; ++i) {
    for (int64_t j = 0; j < source; ++j) {
      work.encoder_pairs += same(sample.encoder_document, sample.encoder_document, i, j);
    }
  }
  for (int64_t i = 0; i < target; ++i) {
    for (int64_t j = 0; j < target; ++j) {
      const bool visible = j <= i || (i < sample.prefix && j < sample.prefix);
      work.decoder_pairs += visible && same(sample.decoder_document, sample.decoder_document, i, j);
    }
    for (int64_t j = 0; j < source; ++j) {
      work.cross_pairs += same(sample.decoder_document, sample.encoder_document, i, j);
    }
  }
  return work;
}

data::Sample random_sample(bool documents, bool encoder, uint64_t& draw) {
  const auto length = [&draw](uint32_t most) {
    return static_cast<std::size_t>(1 + philox(3, draw++)[0] % most);
  };
  data::Sample sample;
  if (encoder) sample.encoder_input.assign(length(19), 1);
  sample.decoder_input.assign(length(23), 1);
  sample.decoder_target = sample.decoder_input;
  sample.loss_mask.assign(sample.decoder_input.size(), 1);
  sample.prefix = static_cast<int32_t>(philox(3, draw++)[0] % (sample.decoder_input.size() + 1));
  if (documents) {
    sample.encoder_document = random_documents(sample.encoder_input.size(), draw);
    sample.decoder_document = random_documents(sample.decoder_input.size(), draw);
  }
  return sample;
}

TEST(CostModel, PairsOfRaggedBatchesWithPrefixesAndDocuments) {
  uint64_t draw = 0;
  for (int round = 0; round < 200; ++round) {
    const bool documents = round % 2 == 0, encoder = round % 3 != 0;
    std::vector<data::Sample> samples;
    Work expected, full;
    for (int i = 0; i < 1 + round % 5; ++i) {
      samples.push_back(random_sample(documents, encoder, draw));
      expected += count_pairs(samples.back());
      full += work_of(static_cast<int64_t>(samples.back().encoder_input.size()),
                      static_cast<int64_t>(samples.back().decoder_input.size()), 0, AttentionCount::full);
    }
    data::MicroBatch batch;
    data::pack(samples, data::DecoderPositions::after_encoder, batch);
    const Work work = work_of(batch);
    ASSERT_EQ(work.encoder_tokens, expected.encoder_tokens);
    ASSERT_EQ(work.decoder_tokens, expected.decoder_tokens);
    ASSERT_EQ(work.encoder_pairs, expected.encoder_pairs);
    ASSERT_EQ(work.decoder_pairs, expected.decoder_pairs) << "round " << round;
    ASSERT_EQ(work.cross_pairs, expected.cross_pairs) << "round " << round;
    ASSERT_EQ(work_of(batch, AttentionCount::full), full);
  }
}

TEST(CostModel, LayerCostsAddUpToTheForwardPass) {
  for (const Kind kind : {Kind::red, Kind::dec}) {
    const ModelConfig config = tiny_model(kind);
    const Work work = kind == Kind::red ? work_of(7, 5) : work_of(0, 11);
    const parallel::LayerCosts costs = layer_costs(config, work);
    EXPECT_DOUBLE_EQ(static_cast<double>(config.encoder_layers) * costs.encoder_layer +
                         static_cast<double>(config.decoder_layers) * costs.decoder_layer + costs.head,
                     forward_flops(config, work).total());
    EXPECT_DOUBLE_EQ(place_layers(layer_counts(config), 0, 1, costs).stages[0].cost,
                     forward_flops(config, work).total());
  }
}

TEST(CostModel, RefusesNegativeLengths) {
  EXPECT_THROW(work_of(-1, 3), LogicError);
  EXPECT_THROW(work_of(3, -1), LogicError);
}

}  // namespace
}  // namespace red::model
