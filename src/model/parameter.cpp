// The list of logical parameters, and their initial values as a pure function of (seed, name, element): no
// rank ever needs more of the model than its own part, and no layout changes what a run starts from.
#include "model/parameter.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>

#include "base/check.hpp"
#include "base/philox.hpp"

namespace red::model {
namespace {

ParameterSpec gain(std::string name, int64_t width) {
  return {.name = std::move(name), .rows = width, .cols = 1, .init_std = 0.0};
}

/// y = x W with W (fan_in, fan_out).
ParameterSpec dense(std::string name, int64_t fan_in, int64_t fan_out, TensorCut cut, int64_t cut_unit = 1) {
  return {.name = std::move(name),
          .rows = fan_in,
          .cols = fan_out,
          .init_std = 1.0 / std::sqrt(static_cast<double>(fan_in)),
          .cut = cut,
          .cut_unit = cut_unit};
}

void append_attention(std::vector<ParameterSpec>& specs, const std::string& block,
                      const ModelConfig& config) {
  const int64_t d = config.d_model, a = config.attention_width();
  specs.push_back(gain(block + "_norm.gain", d));
  for (const char* matrix : {".query.weight", ".key.weight", ".value.weight"}) {
    specs.push_back(dense(block + matrix, d, a, TensorCut::columns, config.head_dim));
  }
  specs.push_back(dense(block + ".output.weight", a, d, TensorCut::rows, config.head_dim));
}

void append_ffn(std::vector<ParameterSpec>& specs, const std::string& layer, const ModelConfig& config) {
  const int64_t d = config.d_model, f = config.d_ff;
  specs.push_back(gain(layer + "ffn_norm.gain", d));
  specs.push_back(dense(layer + "ffn.gate.weight", d, f, TensorCut::columns));
  specs.push_back(dense(layer + "ffn.up.weight", d, f, TensorCut::columns));
  specs.push_back(dense(layer + "ffn.down.weight", f, d, TensorCut::rows));
}

void append_stack(std::vector<ParameterSpec>& specs, const std::string& stack, int64_t num_layers,
                  bool cross_attention, const ModelConfig& config) {
  for (int64_t i = 0; i < num_layers; ++i) {
    const std::string layer = fmt::format("{}.layers.{}.", stack, i);
    append_attention(specs, layer + "self_attention", config);
    if (cross_attention) append_attention(specs, layer + "cross_attention", config);
    append_ffn(specs, layer, config);
  }
  specs.push_back(gain(stack + ".final_norm.gain", config.d_model));
}

/// Four independent standard normal deviates from one block: both of Box and Muller's, twice.
std::array<double, 4> normals(const PhiloxBlock& block) {
  std::array<double, 4> out{};
  for (std::size_t pair = 0; pair < 4; pair += 2) {
    const double u = (static_cast<double>(block[pair]) + 1.0) * 0x1.0p-32;  // (0, 1]
    const double angle = 2.0 * std::numbers::pi * (static_cast<double>(block[pair + 1]) * 0x1.0p-32);
    const double radius = std::sqrt(-2.0 * std::log(u));
    out[pair] = radius * std::cos(angle);
    out[pair + 1] = radius * std::sin(angle);
  }
  return out;
}

}  // namespace

std::vector<ParameterSpec> parameter_specs(const ModelConfig& config) {
  std::vector<ParameterSpec> specs;
  specs.push_back({.name = "embedding.weight",
                   .rows = config.vocab_size,
                   .cols = config.d_model,
                   .init_std = 1.0,
                   .cut = TensorCut::rows});
  if (config.has_encoder()) append_stack(specs, "encoder", config.encoder_layers, false, config);
  append_stack(specs, "decoder", config.decoder_layers, config.has_encoder(), config);
  for (std::size_t i = 0; i < specs.size(); ++i) specs[i].index = static_cast<int64_t>(i);
  return specs;
}

ParameterRegion region_of(const ParameterSpec& spec, const TensorRank& at) {
  ParameterRegion region{0, spec.rows, 0, spec.cols};
  if (spec.cut == TensorCut::none) return region;
  const bool rows = spec.cut == TensorCut::rows;
  const int64_t units = (rows ? spec.rows : spec.cols) / spec.cut_unit;
  const int64_t begin = units * at.rank / at.size * spec.cut_unit;
  const int64_t count = units * (at.rank + 1) / at.size * spec.cut_unit - begin;
  (rows ? region.row_begin : region.col_begin) = begin;
  (rows ? region.num_rows : region.num_cols) = count;
  return region;
}

int64_t num_parameters(const ModelConfig& config) {
  int64_t total = 0;
  for (const ParameterSpec& spec : parameter_specs(config)) total += spec.size();
  return total;
}

void initial_values(const ParameterSpec& spec, uint64_t seed, int64_t begin, std::span<float> values) {
  const int64_t end = begin + static_cast<int64_t>(values.size());
  RED_CHECK(begin >= 0 && end <= spec.size(), "elements [{}, {}) of {} with {}", begin, end, spec.name,
            spec.size());
  if (spec.is_gain()) {
    std::fill(values.begin(), values.end(), 1.0F);
    return;
  }
  const uint64_t key = hash_name(spec.name);
  std::size_t done = 0;
  for (int64_t block = begin / 4; done < values.size(); ++block) {
    const std::array<double, 4> z = normals(philox(key, static_cast<uint64_t>(block), seed));
    const int64_t from = std::max(begin - block * 4, int64_t{0}), to = std::min(end - block * 4, int64_t{4});
    for (int64_t i = from; i < to; ++i) {
      values[done++] = static_cast<float>(spec.init_std * z[static_cast<std::size_t>(i)]);
    }
  }
}

float initial_value(const ParameterSpec& spec, uint64_t seed, int64_t index) {
  float value = 0.0F;
  initial_values(spec, seed, index, {&value, 1});
  return value;
}

}  // namespace red::model
