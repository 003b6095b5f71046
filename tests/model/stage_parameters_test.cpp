// Every parameter has a holder, and exactly one that counts, whatever the stages.
#include "model/stage_parameters.hpp"

#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "base/error.hpp"
#include "model/models.hpp"

namespace red::model {
namespace {

using parallel::place_layers;
using parallel::Placement;
using parallel::StagePlacement;

TEST(StageParameters, OneStageHoldsAllInOrder) {
  for (const Kind kind : {Kind::red, Kind::dec}) {
    const ModelConfig config = tiny_model(kind);
    const Placement placement = place_layers(layer_counts(config), 0, 1);
    std::vector<std::string> all;
    for (const ParameterSpec& spec : parameter_specs(config)) all.push_back(spec.name);
    EXPECT_EQ(stage_parameter_names(config, placement.stages[0]), all);
  }
}

TEST(StageParameters, EncoderAndDecoderStageByHand) {
  ModelConfig config = tiny_model(Kind::red);
  config.encoder_layers = config.decoder_layers = 1;
  const Placement placement = place_layers(layer_counts(config), 1, 1);
  const std::vector<std::string> encoder = stage_parameter_names(config, placement.stages[0]);
  const std::vector<std::string> decoder = stage_parameter_names(config, placement.stages[1]);
  ASSERT_EQ(encoder.size(), 11U);  // embedding, 5 of attention, 4 of the feed-forward part, final norm
  ASSERT_EQ(decoder.size(), 16U);  // as above and 5 of cross-attention
  EXPECT_EQ(encoder.front(), "embedding.weight");
  EXPECT_EQ(encoder.back(), "encoder.final_norm.gain");
  EXPECT_EQ(decoder.front(), "embedding.weight");
  EXPECT_EQ(decoder[1], "decoder.layers.0.self_attention_norm.gain");
  EXPECT_EQ(decoder.back(), "decoder.final_norm.gain");
}

// Holders of each parameter, summed over the stages with the owner's copy of the embedding alone, give the
// model.
void expect_complete(const ModelConfig& config, int encoder_stages, int decoder_stages) {
  const Placement placement = place_layers(layer_counts(config), encoder_stages, decoder_stages);
  std::map<std::string, int> holders;
  int64_t counted = 0;
  for (const StagePlacement& stage : placement.stages) {
    for (const ParameterSpec& spec : stage_parameters(config, stage)) {
      ++holders[spec.name];
      if (spec.name != "embedding.weight" || stage.owns_embedding()) counted += spec.size();
    }
  }
  EXPECT_EQ(counted, num_parameters(config));
  for (const ParameterSpec& spec : parameter_specs(config)) {
    const int expected =
        spec.name == "embedding.weight" ? static_cast<int>(placement.embedding_holders.size()) : 1;
    EXPECT_EQ(holders[spec.name], expected) << spec.name;
  }
}

TEST(StageParameters, EveryParameterOnceWhateverTheStages) {
  ModelConfig red = tiny_model(Kind::red), dec = tiny_model(Kind::dec);
  red.encoder_layers = 11;  // two digits: layer 1 must not take layer 10 with it
  red.decoder_layers = dec.decoder_layers = 13;
  expect_complete(red, 0, 1);
  for (int decoder_stages = 1; decoder_stages <= 8; ++decoder_stages) {
    expect_complete(dec, 0, decoder_stages);
    for (int encoder_stages = 1; encoder_stages <= 8; ++encoder_stages) {
      expect_complete(red, encoder_stages, decoder_stages);
    }
  }
}

TEST(StageParameters, AnUnknownNameIsABug) {
  const StagePlacement stage = place_layers({.decoder_layers = 2}, 0, 1).stages[0];
  EXPECT_THROW(holds_parameter(stage, "decoder.layers.x.ffn.up.weight"), LogicError);
  EXPECT_THROW(holds_parameter(stage, "decoder.layers.1"), LogicError);
  EXPECT_THROW(holds_parameter(stage, "embedding"), LogicError);
  EXPECT_FALSE(holds_parameter(stage, "decoder.layers.2.ffn.up.weight"));
}

}  // namespace
}  // namespace red::model
