#include "eval/held_out.hpp"

#include "base/log.hpp"
#include "train/run_options.hpp"

namespace red::eval {

HeldOut open_held_out(const data::DataConfig& config, const data::SpecialIds& ids, bool has_encoder) {
  HeldOut held_out;
  for (const data::SourceConfig& source : config.sources) {
    if (source.held_out.empty()) {
      log::warning("source {} has no held_out token files: left out of evaluation", source.name);
      continue;
    }
    held_out.push_back(
        data::make_evaluation_provider(config, source.name, source.held_out, ids, has_encoder));
  }
  if (held_out.empty())
    throw ConfigError("no source has held-out token files: give one by --data.source.NAME.held_out=PREFIX");
  return held_out;
}

Validation::Validation(const config::RunConfig& config, const data::SpecialIds& ids)
    : held_out_(open_held_out(config.data, ids, config.model.has_encoder())) {
  options_.num_late_targets = data::num_late_targets(config.data);
  options_.micro_batch = config.train.micro_batch;
  options_.max_windows = config.train.validation_windows;
  options_.positions = train::decoder_positions(config.model);
}

std::vector<train::ValidationLoss> Validation::operator()(train::Engine& engine) const {
  std::vector<train::ValidationLoss> losses;
  for (const auto& samples : held_out_) {
    const SourcePerplexity result = perplexity(engine, *samples, options_);
    losses.push_back(
        {result.source, result.windows, result.all.count, result.all.mean(), result.second_half.mean()});
  }
  return losses;
}

}  // namespace red::eval
