#include "eval/held_out.hpp"

#include "base/log.hpp"
#include "train/run_options.hpp"

namespace red::eval {

HeldOutWindows open_held_out(const data::DataConfig& config, const data::SpecialIds& ids,
                             const data::WindowShape& shape) {
  HeldOutWindows windows;
  for (const data::SourceConfig& source : config.sources) {
    if (source.held_out.empty()) {
      log::warning("source {} has no held_out token files: left out of evaluation", source.name);
      continue;
    }
    windows.push_back(data::make_evaluation_provider(config, source.name, source.held_out, ids, shape));
  }
  if (windows.empty())
    throw ConfigError("no source has held-out token files: give one by --data.source.NAME.held_out=PREFIX");
  return windows;
}

Validation::Validation(const config::RunConfig& config, const data::SpecialIds& ids)
    : windows_(open_held_out(config.data, ids, data::window_shape(config.data, config.model.has_encoder()))) {
  options_.window = config.data.window;
  options_.micro_batch = config.train.micro_batch;
  options_.max_windows = config.train.validation_windows;
  options_.positions = train::decoder_positions(config.model);
}

std::vector<train::ValidationLoss> Validation::operator()(train::Engine& engine) const {
  std::vector<train::ValidationLoss> losses;
  for (const auto& windows : windows_) {
    const SourcePerplexity result = perplexity(engine, *windows, options_);
    losses.push_back(
        {result.source, result.windows, result.all.count, result.all.mean(), result.second_half.mean()});
  }
  return losses;
}

}  // namespace red::eval
