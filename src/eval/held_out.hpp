// Held-out text of a run's sources, opened once and scored as often as one likes: always the same windows.
#pragma once

#include <memory>
#include <vector>

#include "config/run_config.hpp"
#include "eval/perplexity.hpp"
#include "train/metrics.hpp"

namespace red::eval {

/// By source; shared, so that what evaluates them may be copied.
using HeldOut = std::vector<std::shared_ptr<const data::FixedProvider>>;

/// Windows or pairs of each source that has held-out token files ([data.source.NAME] held_out), in the order
/// of the configuration; the log names the others. Throws ConfigError where no source has any, and what
/// opening token files throws.
HeldOut open_held_out(const data::DataConfig& config, const data::SpecialIds& ids, bool has_encoder);

/// Validation during training: the first train.validation_windows windows or pairs of each source's held-out
/// data.
class Validation {
 public:
  /// Throws as open_held_out does.
  Validation(const config::RunConfig& config, const data::SpecialIds& ids);

  /// The mean losses, forward only, with the parameters that the engine has. Collective; the same on every
  /// rank, and in every layout but for rounding.
  std::vector<train::ValidationLoss> operator()(train::Engine& engine) const;

 private:
  HeldOut held_out_;
  PerplexityOptions options_;
};

}  // namespace red::eval
