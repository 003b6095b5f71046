// Checkpoints of small models for the tests of conversions, made without training.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "config/parse.hpp"
#include "config/print.hpp"
#include "convert/checkpoint_writer.hpp"
#include "convert/model_checkpoint.hpp"

namespace red::test {

using Overrides = std::vector<std::pair<std::string, std::string>>;

inline Overrides small_red() {
  return {{"model.kind", "red"},         {"model.vocab_size", "50"},   {"model.d_model", "16"},
          {"model.d_ff", "24"},          {"model.num_heads", "2"},     {"model.head_dim", "8"},
          {"model.encoder_layers", "1"}, {"model.decoder_layers", "2"}};
}
inline Overrides small_dec() {
  return {{"model.kind", "dec"},        {"model.vocab_size", "50"}, {"model.d_model", "16"},
          {"model.d_ff", "24"},         {"model.num_heads", "2"},   {"model.head_dim", "8"},
          {"model.decoder_layers", "2"}};
}

/// Fills the values of a parameter, row after row.
using Fill = std::function<void(const model::ParameterSpec&, std::span<float>)>;

/// RUN/checkpoints/step-N of the model that the overrides describe; returns the checkpoint's folder.
inline std::filesystem::path make_checkpoint(const std::filesystem::path& run_dir, const Overrides& overrides,
                                             const Fill& fill, int64_t step = 7,
                                             const std::string& tokenizer_digest = {}) {
  config::Sources sources;
  sources.overrides = overrides;
  const config::Loaded loaded = config::load(sources);
  const std::vector<model::ParameterSpec> parameters = model::parameter_specs(loaded.config.model);
  std::vector<checkpoint::LogicalTensor> tensors;
  for (const model::ParameterSpec& spec : parameters) tensors.push_back(convert::logical_tensor(spec));
  convert::CheckpointWriter writer(run_dir, tensors);
  std::vector<float> values;
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    values.resize(static_cast<std::size_t>(parameters[i].size()));
    fill(parameters[i], values);
    writer.write(i, {0, parameters[i].rows, 0, parameters[i].cols}, values);
  }
  checkpoint::Metadata metadata;
  metadata.step = step;
  metadata.sample_cursor = static_cast<uint64_t>(step) * 4;
  metadata.configuration = config::print_effective(loaded);
  metadata.layout = "made by a test";
  metadata.tokenizer_digest = tokenizer_digest;
  writer.save(metadata);
  return *checkpoint::find_latest(run_dir / "checkpoints");
}

inline Fill initial_values(uint64_t seed) {
  return [seed](const model::ParameterSpec& spec, std::span<float> values) {
    model::initial_values(spec, seed, 0, values);
    // Gains are all ones at first; these can be told apart.
    for (std::size_t i = 0; spec.is_gain() && i < values.size(); ++i)
      values[i] += 0.01F * static_cast<float>(i + static_cast<std::size_t>(spec.index));
  };
}

inline std::vector<float> values_of(const convert::ModelCheckpoint& model, const model::ParameterSpec& spec) {
  std::vector<float> values(static_cast<std::size_t>(spec.size()));
  model.read(spec, {0, spec.rows, 0, spec.cols}, values);
  return values;
}

}  // namespace red::test
