// A name says which layer of which stack a parameter belongs to, and the placement says who holds that layer.
#include "model/stage_parameters.hpp"

#include <algorithm>
#include <charconv>
#include <optional>
#include <string_view>

#include "base/check.hpp"

namespace red::model {
namespace {

/// 12 for ("encoder.layers.", "encoder.layers.12.ffn.up.weight"); nothing for another stack's name.
std::optional<int64_t> layer_index(std::string_view prefix, std::string_view name) {
  if (!name.starts_with(prefix)) return std::nullopt;
  name.remove_prefix(prefix.size());
  int64_t index = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), index);
  if (error != std::errc() || end == name.data() + name.size() || *end != '.') return std::nullopt;
  return index;
}

}  // namespace

parallel::LayerCounts layer_counts(const ModelConfig& config) {
  return {.has_encoder = config.has_encoder(),
          .encoder_layers = config.encoder_layers,
          .decoder_layers = config.decoder_layers};
}

parallel::LayoutLimits layout_limits(const ModelConfig& config) {
  return {.has_encoder = config.has_encoder(),
          .encoder_layers = config.encoder_layers,
          .decoder_layers = config.decoder_layers,
          .num_heads = config.num_heads,
          .d_ff = config.d_ff};
}

std::optional<LayerOfParameter> layer_of(const std::string& name) {
  if (const auto layer = layer_index("encoder.layers.", name))
    return LayerOfParameter{Stack::encoder, *layer};
  if (const auto layer = layer_index("decoder.layers.", name))
    return LayerOfParameter{Stack::decoder, *layer};
  return std::nullopt;
}

bool holds_parameter(const parallel::StagePlacement& stage, const std::string& name) {
  if (name == "embedding.weight") return stage.holds_embedding();
  if (name == "encoder.final_norm.gain") return stage.has_encoder_final_norm;
  if (name == "decoder.final_norm.gain") return stage.has_head;
  if (const auto layer = layer_index("encoder.layers.", name)) {
    return *layer >= stage.encoder_begin && *layer < stage.encoder_end;
  }
  const auto layer = layer_index("decoder.layers.", name);
  RED_CHECK(layer.has_value(), "no model has a parameter '{}'", name);
  return *layer >= stage.decoder_begin && *layer < stage.decoder_end;
}

std::vector<ParameterSpec> stage_parameters(const ModelConfig& config,
                                            const parallel::StagePlacement& stage) {
  return stage_parameters(config, std::vector{stage});
}

std::vector<ParameterSpec> stage_parameters(const ModelConfig& config,
                                            const std::vector<parallel::StagePlacement>& chunks) {
  std::vector<ParameterSpec> held;
  for (ParameterSpec& spec : parameter_specs(config)) {
    const bool any = std::any_of(chunks.begin(), chunks.end(),
                                 [&](const auto& chunk) { return holds_parameter(chunk, spec.name); });
    if (any) held.push_back(std::move(spec));
  }
  return held;
}

std::vector<std::string> stage_parameter_names(const ModelConfig& config,
                                               const parallel::StagePlacement& stage) {
  std::vector<std::string> names;
  for (ParameterSpec& spec : stage_parameters(config, stage)) names.push_back(std::move(spec.name));
  return names;
}

}  // namespace red::model
