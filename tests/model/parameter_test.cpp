// The list of parameters against a case by hand, the paper's counts and the reference's files; initial values
// against a second implementation, their moments, and independence of who computes which part.
#include "model/parameter.hpp"

#include <gtest/gtest.h>
#include <hdf5.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/error.hpp"
#include "base/philox.hpp"
#include "model/models.hpp"

namespace red::model {
namespace {

using Shapes = std::map<std::string, std::pair<int64_t, int64_t>>;  // gains are (d, 1)

Shapes shapes_of(const ModelConfig& config) {
  Shapes shapes;
  for (const ParameterSpec& spec : parameter_specs(config)) {
    EXPECT_TRUE(shapes.emplace(spec.name, std::pair{spec.rows, spec.cols}).second) << spec.name << " twice";
  }
  return shapes;
}

TEST(ParameterSpecs, OneLayerEachByHand) {
  ModelConfig config = tiny_model(Kind::red);  // V 67, d 10, f 14, 3 heads of 6
  config.encoder_layers = config.decoder_layers = 1;
  std::vector<std::string> names;
  std::vector<std::pair<int64_t, int64_t>> shapes;
  for (const ParameterSpec& spec : parameter_specs(config)) {
    names.push_back(spec.name);
    shapes.emplace_back(spec.rows, spec.cols);
  }
  const std::string e = "encoder.layers.0.", d = "decoder.layers.0.";
  const std::string self = "self_attention", cross = "cross_attention";
  EXPECT_EQ(names, (std::vector<std::string>{
                       "embedding.weight",          e + self + "_norm.gain",     e + self + ".query.weight",
                       e + self + ".key.weight",    e + self + ".value.weight",  e + self + ".output.weight",
                       e + "ffn_norm.gain",         e + "ffn.gate.weight",       e + "ffn.up.weight",
                       e + "ffn.down.weight",       "encoder.final_norm.gain",   d + self + "_norm.gain",
                       d + self + ".query.weight",  d + self + ".key.weight",    d + self + ".value.weight",
                       d + self + ".output.weight", d + cross + "_norm.gain",    d + cross + ".query.weight",
                       d + cross + ".key.weight",   d + cross + ".value.weight", d + cross + ".output.weight",
                       d + "ffn_norm.gain",         d + "ffn.gate.weight",       d + "ffn.up.weight",
                       d + "ffn.down.weight",       "decoder.final_norm.gain"}));
  const std::vector<std::pair<int64_t, int64_t>> expected = {
      {67, 10},                                          // embedding
      {10, 1},  {10, 18}, {10, 18}, {10, 18}, {18, 10},  // encoder: self-attention
      {10, 1},  {10, 14}, {10, 14}, {14, 10}, {10, 1},   // feed-forward, final norm
      {10, 1},  {10, 18}, {10, 18}, {10, 18}, {18, 10},  // decoder: self-attention
      {10, 1},  {10, 18}, {10, 18}, {10, 18}, {18, 10},  // cross-attention
      {10, 1},  {10, 14}, {10, 14}, {14, 10}, {10, 1}};  // feed-forward, final norm
  EXPECT_EQ(shapes, expected);
}

TEST(ParameterSpecs, CountsOfThePaper) {
  for (const PaperSize& size : kPaperSizes) {
    for (const Kind kind : {Kind::dec, Kind::red}) {
      const auto count = static_cast<double>(num_parameters(paper_model(size, kind)));
      EXPECT_EQ(fmt::format("{:.3f}", count / 1e9),
                kind == Kind::dec ? size.dec_parameters : size.red_parameters)
          << size.name;
    }
  }
}

// One file of the reference implementation: its configuration, and the name and shape of each parameter.
std::string read_config(hid_t file) {
  const hid_t attribute = H5Aopen(file, "config", H5P_DEFAULT);
  const hid_t type = H5Aget_type(attribute);
  std::string text;
  if (H5Tis_variable_str(type) > 0) {
    char* raw = nullptr;
    EXPECT_GE(H5Aread(attribute, type, static_cast<void*>(&raw)), 0);
    text = raw;
    H5free_memory(raw);
  } else {
    text.resize(H5Tget_size(type));
    EXPECT_GE(H5Aread(attribute, type, text.data()), 0);
  }
  H5Tclose(type);
  H5Aclose(attribute);
  return text;
}

herr_t add_shape(hid_t group, const char* name, const H5L_info_t*, void* shapes) {
  const hid_t dataset = H5Dopen2(group, name, H5P_DEFAULT);
  const hid_t space = H5Dget_space(dataset);
  hsize_t dims[2] = {0, 1};
  H5Sget_simple_extent_dims(space, dims, nullptr);
  (*static_cast<Shapes*>(shapes))[name] = {static_cast<int64_t>(dims[0]), static_cast<int64_t>(dims[1])};
  H5Sclose(space);
  H5Dclose(dataset);
  return 0;
}

TEST(ParameterSpecs, NamesAndShapesOfTheGoldenFiles) {
  int num_files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(RED_SOURCE_DIR "/tests/golden")) {
    const std::string stem = entry.path().stem().string();
    if (entry.path().extension() != ".h5" || (!stem.starts_with("red_") && !stem.starts_with("dec_")))
      continue;
    ++num_files;
    const hid_t file = H5Fopen(entry.path().c_str(), H5F_ACC_RDONLY, H5P_DEFAULT);
    ASSERT_GE(file, 0) << entry.path();
    const auto json = nlohmann::json::parse(read_config(file));
    ModelConfig config;
    config.kind = json.at("kind") == "red" ? Kind::red : Kind::dec;
    config.vocab_size = json.at("vocab");
    config.d_model = json.at("d");
    config.d_ff = json.at("f");
    config.num_heads = json.at("heads");
    config.head_dim = json.at("d_h");
    config.encoder_layers = json.at("encoder_layers");
    config.decoder_layers = json.at("decoder_layers");
    const hid_t group = H5Gopen2(file, "parameters", H5P_DEFAULT);
    Shapes expected;
    EXPECT_GE(H5Literate(group, H5_INDEX_NAME, H5_ITER_NATIVE, nullptr, add_shape, &expected), 0);
    H5Gclose(group);
    H5Fclose(file);
    EXPECT_EQ(shapes_of(config), expected) << stem;
  }
  EXPECT_GE(num_files, 12);
}

// Values computed by a second implementation of Philox and of Box and Muller's rule, in Python. They may
// never change: a seed in somebody's configuration means these weights.
TEST(InitialValue, KnownValues) {
  const ParameterSpec embedding{.name = "embedding.weight", .rows = 67, .cols = 10, .init_std = 1.0};
  const ParameterSpec down{
      .name = "decoder.layers.0.ffn.down.weight", .rows = 100, .cols = 16, .init_std = 0.1};
  EXPECT_FLOAT_EQ(initial_value(embedding, 1, 0), 0.6981233564266071F);
  EXPECT_FLOAT_EQ(initial_value(embedding, 1, 5), 1.425643847580406F);
  EXPECT_FLOAT_EQ(initial_value(down, 7, 1002), 0.11677501422530216F);
  EXPECT_FLOAT_EQ(initial_value(down, 7, 1003), 0.1549182984821337F);
}

struct Moments {
  double mean = 0.0, variance = 0.0, kurtosis = 0.0, lag1 = 0.0;
};

Moments moments_of(const std::vector<float>& x) {
  Moments m;
  const auto n = static_cast<double>(x.size());
  for (const float v : x) m.mean += v / n;
  double fourth = 0.0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double v = x[i] - m.mean;
    m.variance += v * v / n;
    fourth += v * v * v * v / n;
    if (i > 0) m.lag1 += v * (x[i - 1] - m.mean) / n;
  }
  m.kurtosis = fourth / (m.variance * m.variance);
  m.lag1 /= m.variance;
  return m;
}

TEST(InitialValue, MomentsAreThoseOfTheRecipe) {
  const ModelConfig config = paper_model(kPaperSizes[0], Kind::red);
  int num_checked = 0;
  for (const ParameterSpec& spec : parameter_specs(config)) {
    if (spec.name.find("layers.1") != std::string::npos || spec.name.find("layers.2") != std::string::npos)
      continue;
    ++num_checked;
    std::vector<float> x(static_cast<std::size_t>(std::min<int64_t>(spec.size(), 1'000'000)));
    initial_values(spec, 3, 0, x);
    const Moments m = moments_of(x);
    if (spec.is_gain()) {
      EXPECT_TRUE(std::all_of(x.begin(), x.end(), [](float v) { return v == 1.0F; })) << spec.name;
      continue;
    }
    const double variance = spec.name == "embedding.weight" ? 1.0 : 1.0 / static_cast<double>(spec.rows);
    // A million samples: standard errors are 1e-3 of the deviation for the mean and the lag, 1.4e-3 for the
    // variance, 4.9e-3 for the kurtosis. Four of them are allowed.
    EXPECT_NEAR(m.mean, 0.0, 4e-3 * std::sqrt(variance)) << spec.name;
    EXPECT_NEAR(m.variance / variance, 1.0, 5.7e-3) << spec.name;
    EXPECT_NEAR(m.kurtosis, 3.0, 2e-2) << spec.name;
    EXPECT_NEAR(m.lag1, 0.0, 4e-3) << spec.name;
  }
  EXPECT_EQ(num_checked, 26);  // one layer of each stack
}

TEST(InitialValue, AnyPartEqualsTheWhole) {
  for (const ParameterSpec& spec : parameter_specs(tiny_model(Kind::red))) {
    std::vector<float> whole(static_cast<std::size_t>(spec.size()));
    initial_values(spec, 11, 0, whole);
    for (int64_t i = 0; i < spec.size(); ++i) {
      ASSERT_EQ(initial_value(spec, 11, i), whole[static_cast<std::size_t>(i)]) << spec.name << " " << i;
    }
    for (int64_t begin = 0; begin < spec.size(); begin += 7) {
      for (const int64_t length : {0, 1, 2, 3, 4, 5, 9, 23}) {
        if (begin + length > spec.size()) continue;
        std::vector<float> part(static_cast<std::size_t>(length));
        initial_values(spec, 11, begin, part);
        EXPECT_TRUE(std::equal(part.begin(), part.end(), whole.begin() + begin)) << spec.name << " " << begin;
      }
    }
  }
}

TEST(InitialValue, SeedsAndNamesAreIndependent) {
  const ModelConfig config = paper_model(kPaperSizes[4], Kind::red);
  std::set<uint64_t> keys;
  std::set<float> first;
  int64_t num_random = 0;
  for (const ParameterSpec& spec : parameter_specs(config)) {
    EXPECT_TRUE(keys.insert(hash_name(spec.name)).second) << spec.name;
    if (spec.is_gain()) continue;
    for (const uint64_t seed : {0, 1, 2}) {
      first.insert(initial_value(spec, seed, 0) / static_cast<float>(spec.init_std));
      ++num_random;
    }
  }
  EXPECT_GE(static_cast<int64_t>(first.size()),
            num_random - 1);  // 600 of 2^24 floats: a chance meeting is rare
}

TEST(InitialValue, RefusesElementsOutside) {
  const ParameterSpec spec{.name = "x", .rows = 3, .cols = 4, .init_std = 1.0};
  EXPECT_NO_THROW(initial_value(spec, 1, 11));
  EXPECT_THROW(initial_value(spec, 1, 12), LogicError);
  EXPECT_THROW(initial_value(spec, 1, -1), LogicError);
}

}  // namespace
}  // namespace red::model
