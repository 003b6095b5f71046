// What a description of a model may not say, and that the message names the key.
#include "model/model_config.hpp"

#include <gtest/gtest.h>

#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "base/error.hpp"
#include "model/models.hpp"

namespace red::model {
namespace {

TEST(ModelConfig, TheModelsOfThePaperAreValid) {
  for (const PaperSize& size : kPaperSizes) {
    EXPECT_NO_THROW(validate(paper_model(size, Kind::red))) << size.name;
    EXPECT_NO_THROW(validate(paper_model(size, Kind::dec))) << size.name;
  }
  EXPECT_NO_THROW(validate(tiny_model(Kind::red)));
  EXPECT_NO_THROW(validate(tiny_model(Kind::dec)));
}

struct BadValue {
  const char* starts_with;
  std::function<void(ModelConfig&)> spoil;
  Kind kind = Kind::red;
};

TEST(ModelConfig, EachImpossibleValueIsNamedWithItsKey) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const std::vector<BadValue> cases = {
      {"model.vocab_size = 0: ", [](ModelConfig& c) { c.vocab_size = 0; }},
      {"model.vocab_size = 2147483648: ", [](ModelConfig& c) { c.vocab_size = int64_t{1} << 31; }},
      {"model.d_model = 0: ", [](ModelConfig& c) { c.d_model = 0; }},
      {"model.d_model = 1048577: ", [](ModelConfig& c) { c.d_model = (1 << 20) + 1; }},
      {"model.d_ff = -4: ", [](ModelConfig& c) { c.d_ff = -4; }},
      {"model.num_heads = 0: ", [](ModelConfig& c) { c.num_heads = 0; }},
      {"model.num_heads = 1048576: ", [](ModelConfig& c) { c.num_heads = 1 << 20; }},
      {"model.head_dim = 0: ", [](ModelConfig& c) { c.head_dim = 0; }},
      {"model.head_dim = 127: must be even", [](ModelConfig& c) { c.head_dim = 127; }},
      {"model.encoder_layers = 0: ", [](ModelConfig& c) { c.encoder_layers = 0; }},
      {"model.encoder_layers = 2: a DecLLM", [](ModelConfig& c) { c.encoder_layers = 2; }, Kind::dec},
      {"model.decoder_layers = 0: ", [](ModelConfig& c) { c.decoder_layers = 0; }},
      {"model.rope_base = 0.5: ", [](ModelConfig& c) { c.rope_base = 0.5; }},
      {"model.rope_base = nan: ", [nan](ModelConfig& c) { c.rope_base = nan; }},
      {"model.norm_epsilon = 0: ", [](ModelConfig& c) { c.norm_epsilon = 0.0; }},
      {"model.norm_epsilon = nan: ", [nan](ModelConfig& c) { c.norm_epsilon = nan; }},
  };
  for (const BadValue& bad : cases) {
    ModelConfig config = tiny_model(bad.kind);
    bad.spoil(config);
    try {
      validate(config);
      ADD_FAILURE() << "accepted: " << bad.starts_with;
    } catch (const ConfigError& error) {
      EXPECT_EQ(std::string(error.what()).rfind(bad.starts_with, 0), 0U) << error.what();
      EXPECT_EQ(error.code(), ExitCode::configuration);
    }
  }
}

}  // namespace
}  // namespace red::model
