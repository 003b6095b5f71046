// The files of configs/: all of them load, and the models are those of the table of sizes.
#include <gtest/gtest.h>

#include <cmath>

#include "config/parse.hpp"
#include "config/validate.hpp"
#include "model/parameter.hpp"

namespace red::config {
namespace {

namespace fs = std::filesystem;

const fs::path kConfigs = RED_SOURCE_DIR "/configs";

Loaded load_preset(const std::vector<std::string>& names,
                   std::vector<std::pair<std::string, std::string>> overrides = {}) {
  Sources sources;
  for (const std::string& name : names) sources.files.push_back(kConfigs / name);
  sources.overrides = std::move(overrides);
  return load(sources);
}

/// From the shapes alone, the tied embedding once: attention 4 d h d_h, feed-forward 3 d f, a gain per norm.
int64_t expected_parameters(const model::ModelConfig& c) {
  const int64_t attention = 4 * c.d_model * c.num_heads * c.head_dim + c.d_model;
  const int64_t ffn = 3 * c.d_model * c.d_ff + c.d_model;
  const bool red = c.kind == model::Kind::red;
  return c.vocab_size * c.d_model + c.encoder_layers * (attention + ffn) + (red ? c.d_model : 0) +
         c.decoder_layers * ((red ? 2 : 1) * attention + ffn) + c.d_model;
}

struct Size {
  std::string name;
  int64_t d, f, h, dec_layers, red_layers;
  double dec_billions, red_billions;
};

const Size kSizes[] = {
    {"150m", 1024, 4096, 8, 8, 3, 0.168, 0.147},   {"1b", 2048, 8192, 16, 16, 7, 1.141, 1.124},
    {"2b", 2560, 10240, 20, 20, 9, 2.181, 2.207},  {"4b", 3072, 12288, 24, 24, 10, 3.725, 3.498},
    {"8b", 4096, 16384, 32, 32, 14, 8.724, 8.590},
};

void expect_size(const Size& size, const model::ModelConfig& c, model::Kind kind) {
  const bool red = kind == model::Kind::red;
  EXPECT_EQ(c.name, (red ? "red_" : "dec_") + size.name);
  EXPECT_EQ(c.kind, kind);
  EXPECT_EQ(c.vocab_size, 32768);
  EXPECT_EQ(c.d_model, size.d);
  EXPECT_EQ(c.d_ff, size.f);
  EXPECT_EQ(c.num_heads, size.h);
  EXPECT_EQ(c.head_dim, 128);
  EXPECT_EQ(c.encoder_layers, red ? size.red_layers : 0);
  EXPECT_EQ(c.decoder_layers, red ? size.red_layers : size.dec_layers);
  EXPECT_EQ(c.attention_output_norm,
            red ? model::AttentionOutputNorm::head : model::AttentionOutputNorm::none);
  const double billions = red ? size.red_billions : size.dec_billions;
  EXPECT_EQ(std::round(static_cast<double>(expected_parameters(c)) / 1e6), std::round(billions * 1e3))
      << c.name;
  EXPECT_EQ(model::num_parameters(c), expected_parameters(c)) << c.name;
}

TEST(Presets, TheTenModelsHaveTheirSizes) {
  for (const Size& size : kSizes) {
    const Loaded red = load_preset({"models/red_" + size.name + ".ini"});
    const Loaded dec = load_preset({"models/dec_" + size.name + ".ini"});
    EXPECT_NO_THROW(validate(red, kModelUse));
    EXPECT_NO_THROW(validate(dec, kModelUse));
    expect_size(size, red.config.model, model::Kind::red);
    expect_size(size, dec.config.model, model::Kind::dec);
  }
}

TEST(Presets, EveryFileLoads) {
  int count = 0;
  for (const fs::directory_entry& entry : fs::recursive_directory_iterator(kConfigs)) {
    if (!entry.is_regular_file()) continue;
    EXPECT_EQ(entry.path().extension(), ".ini") << entry.path();
    EXPECT_NO_THROW(load({.base = {}, .files = {entry.path()}, .overrides = {}})) << entry.path();
    ++count;
  }
  EXPECT_GE(count, 24);
}

TEST(Presets, EveryModelTrainsByTheRecipe) {
  const std::vector<std::pair<std::string, std::string>> rest = {
      {"train.run_dir", "run"}, {"data.tokenizer", "t.model"}, {"data.source.wiki.tokens", "wiki"}};
  for (const fs::directory_entry& entry : fs::directory_iterator(kConfigs / "models")) {
    if (!entry.is_regular_file()) continue;
    const Loaded loaded = load_preset({"models/" + entry.path().filename().string(), "pretrain.ini"}, rest);
    EXPECT_NO_THROW(validate(loaded, kTrainUse)) << entry.path();
    const Loaded tuning =
        load_preset({"models/" + entry.path().filename().string(), "instruction_tuning.ini"}, rest);
    EXPECT_NO_THROW(validate(tuning, kTrainUse)) << entry.path();
  }
}

TEST(Presets, TheRecipeIsThePapers) {
  const RunConfig c = load_preset({"pretrain.ini"}).config;
  EXPECT_EQ(c.train.steps, 400000);
  EXPECT_EQ(c.train.global_batch, 2048);
  EXPECT_EQ(c.train.z_loss, 1e-4);
  EXPECT_FALSE(c.optimizer.factored);
  EXPECT_EQ(c.optimizer.decay, 0.8);
  EXPECT_EQ(c.optimizer.gradient_clip, 1.0);
  EXPECT_EQ(c.schedule.kind, optim::ScheduleKind::cosine);
  EXPECT_EQ(c.schedule.peak, 0.01);
  EXPECT_EQ(c.schedule.warmup_steps, 2000);
  EXPECT_EQ(c.schedule.total_steps, 0);  // the last step of the run
  EXPECT_EQ(c.schedule.final_fraction, 0.1);
  EXPECT_EQ(c.data.window, 2048);
  EXPECT_FALSE(c.data.document_mask);
}

TEST(Presets, InstructionTuningIsThePapers) {
  const RunConfig c = load_preset({"instruction_tuning.ini"}).config;
  EXPECT_EQ(c.train.steps, 190000);
  EXPECT_EQ(c.train.global_batch, 1024);
  EXPECT_EQ(c.train.z_loss, 0.0);
  EXPECT_EQ(c.train.dropout, 0.05);
  EXPECT_FALSE(c.optimizer.factored);
  EXPECT_EQ(c.schedule.kind, optim::ScheduleKind::constant);
  EXPECT_EQ(c.schedule.peak, 0.001);
  EXPECT_EQ(c.schedule.warmup_steps, 0);
  EXPECT_EQ(c.data.samples, data::SampleKind::pairs);
  EXPECT_EQ(c.data.input_length, 2048);
  EXPECT_EQ(c.data.target_length, 512);
}

TEST(Presets, BenchmarksAreWhole) {
  int count = 0;
  for (const std::string kind : {"red", "dec"}) {
    for (const std::string size : {"150m", "tiny"}) {
      const Loaded loaded = load_preset({fmt::format("bench/{}_{}.ini", kind, size)});
      EXPECT_NO_THROW(validate(loaded, kBenchUse));
      const RunConfig& c = loaded.config;
      EXPECT_EQ(c.data.window, size == "tiny" ? 512 : 2048);
      EXPECT_EQ(c.train.global_batch, size == "tiny" ? 4 : 1);
      EXPECT_EQ(c.model.d_model, size == "tiny" ? 256 : 1024);
      EXPECT_EQ(c.model.vocab_size, size == "tiny" ? 4096 : 32768);
      ++count;
    }
  }
  EXPECT_EQ(count, 4);
}

}  // namespace
}  // namespace red::config
