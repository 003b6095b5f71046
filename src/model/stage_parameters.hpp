// Which of a model's logical parameters a stage holds.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "model/parameter.hpp"
#include "parallel/layout.hpp"
#include "parallel/placement.hpp"

namespace red::model {

/// Layer counts as placement wants them.
parallel::LayerCounts layer_counts(const ModelConfig& config);
/// What the model allows of a layout.
parallel::LayoutLimits layout_limits(const ModelConfig& config);

/// True when the stage has a copy of this parameter. The tied embedding may have up to three holders; of them
/// StagePlacement::owns_embedding() tells the one that counts. A name that no model has is a LogicError.
bool holds_parameter(const parallel::StagePlacement& stage, const std::string& name);

/// The stage's parameters, in the order of parameter_specs().
std::vector<ParameterSpec> stage_parameters(const ModelConfig& config, const parallel::StagePlacement& stage);
/// Those of all chunks of a stage, each once.
std::vector<ParameterSpec> stage_parameters(const ModelConfig& config,
                                            const std::vector<parallel::StagePlacement>& chunks);

enum class Stack { encoder, decoder };

/// Where a parameter's gradient is finished: with the backward pass of a layer, or at the end of all.
struct LayerOfParameter {
  Stack stack = Stack::encoder;
  int64_t layer = 0;

  bool operator==(const LayerOfParameter&) const = default;
};
/// The layer of a layer's matrix or gain; nothing for the embedding and the final norms.
std::optional<LayerOfParameter> layer_of(const std::string& name);

/// Their names.
std::vector<std::string> stage_parameter_names(const ModelConfig& config,
                                               const parallel::StagePlacement& stage);

}  // namespace red::model
