#include "config/validate.hpp"

#include <algorithm>
#include <limits>

#include "base/error.hpp"
#include "config/option_table.hpp"
#include "data/mixture.hpp"
#include "data/source_provider.hpp"
#include "model/stage_parameters.hpp"

namespace red::config {
namespace {

/// "train.micro_batch = 3 (a.ini:7)"
std::string with_place(const Loaded& loaded, std::string_view name) {
  for (const RunOption& option : run_options()) {
    if (option.name() == name)
      return fmt::format("{} = {} ({})", name, option.get(loaded.config), loaded.origin(name));
  }
  return std::string(name);
}

/// Keys that have no default and were not given.
void check_needed(const Loaded& loaded, Use use) {
  std::string missing;
  bool model_missing = false;
  for (const RunOption& option : run_options()) {
    if ((option.needed_for & use) == 0 || option.get(loaded.config) != option.default_text) continue;
    missing += fmt::format("{}{}", missing.empty() ? "" : ", ", option.name());
    model_missing = model_missing || option.section == "model";
  }
  if (missing.empty()) return;
  throw ConfigError(
      "not given, and without a default: {}; set {} in a file ([section], key = value) that --config names, "
      "or as "
      "--section.key=value{}",
      missing, missing.find(',') == std::string::npos ? "it" : "them",
      model_missing
          ? "; for a ready model begin with --config configs/models/red_150m.ini or another of that "
            "folder"
          : "");
}

/// Runs a check of another folder, whose messages begin with the key, and adds where the key was set.
template <class Check>
void with_origin(const Loaded& loaded, Check check) {
  try {
    check();
  } catch (const ConfigError& error) {
    const std::string message = error.what();
    const std::string name = message.substr(0, message.find(' '));
    const auto place = loaded.places.find(name);
    if (place == loaded.places.end()) throw;
    throw ConfigError("{}: {}", place->second.to_string(), message);
  }
}

void check_chunks(const Loaded& loaded) {
  const RunConfig& c = loaded.config;
  if (c.pipeline_schedule != parallel::PipelineSchedule::interleaved) {
    if (c.virtual_stages > 1)
      throw ConfigError("{}: only with parallel.schedule = interleaved, and {}",
                        with_place(loaded, "parallel.virtual_stages"),
                        with_place(loaded, "parallel.schedule"));
    return;
  }
  if (c.virtual_stages == 1)
    throw ConfigError("{}: {} takes 2 or more chunks on each stage; with one it is 1f1b",
                      with_place(loaded, "parallel.virtual_stages"), with_place(loaded, "parallel.schedule"));
  if (c.parallel.num_stages() == 1)
    throw ConfigError("{}: there is nothing to interleave on one stage ({}, {}); use 1f1b or more stages",
                      with_place(loaded, "parallel.schedule"), with_place(loaded, "parallel.encoder_stages"),
                      with_place(loaded, "parallel.decoder_stages"));
}

void check_parallel(const Loaded& loaded) {
  const RunConfig& c = loaded.config;
  const double ranks = static_cast<double>(c.parallel.data) * c.parallel.tensor * c.parallel.num_stages();
  if (ranks > std::numeric_limits<int32_t>::max())
    throw ConfigError("{}: with {} this comes to {:.0f} ranks; that must be a slip",
                      with_place(loaded, "parallel.data"), with_place(loaded, "parallel.tensor"), ranks);
  with_origin(loaded,
              [&] { parallel::validate(c.parallel, c.parallel.num_ranks(), model::layout_limits(c.model)); });
  check_chunks(loaded);
  with_origin(loaded, [&] {
    parallel::place_layers(model::layer_counts(c.model),
                           {.encoder_stages = c.parallel.encoder_stages,
                            .decoder_stages = c.parallel.decoder_stages,
                            .virtual_stages = c.num_chunks()},
                           {}, c.split);
  });
}

void check_batch(const Loaded& loaded) {
  const RunConfig& c = loaded.config;
  const int64_t unit = c.train.micro_batch * c.parallel.data;
  const int64_t rest = c.train.global_batch % unit;
  if (rest != 0) {
    const int64_t below = c.train.global_batch - rest;
    throw ConfigError("{}: not a multiple of {} x {}; {}{} would do",
                      with_place(loaded, "train.global_batch"), with_place(loaded, "train.micro_batch"),
                      with_place(loaded, "parallel.data"), below > 0 ? fmt::format("{} or ", below) : "",
                      below + unit);
  }
}

void check_train(const Loaded& loaded) {
  const RunConfig& c = loaded.config;
  if (c.train.steps > std::numeric_limits<int64_t>::max() / c.train.global_batch)
    throw ConfigError("{}: with {} the run has more samples than can be counted",
                      with_place(loaded, "train.steps"), with_place(loaded, "train.global_batch"));
  if (c.schedule.kind == optim::ScheduleKind::cosine) {
    const int64_t total = c.schedule.total_steps == 0 ? c.train.steps : c.schedule.total_steps;
    if (total < c.train.steps)
      throw ConfigError(
          "{}: the cosine ends before {}; leave schedule.total_steps out to end it with the run",
          with_place(loaded, "schedule.total_steps"), with_place(loaded, "train.steps"));
    if (c.schedule.warmup_steps >= total)
      throw ConfigError("{}: the warm-up has to end before the cosine does, at step {} ({}); {} would do",
                        with_place(loaded, "schedule.warmup_steps"), total,
                        c.schedule.total_steps == 0 ? with_place(loaded, "train.steps")
                                                    : with_place(loaded, "schedule.total_steps"),
                        total / 10);
  }
}

void check_validation(const Loaded& loaded) {
  const RunConfig& c = loaded.config;
  const auto& sources = c.data.sources;
  const auto has_held_out = [](const data::SourceConfig& source) { return !source.held_out.empty(); };
  if (c.train.validate_every == 0 || std::any_of(sources.begin(), sources.end(), has_held_out)) return;
  throw ConfigError(
      "{}: no source has held-out token files; give one in its section, held_out = PREFIX, or as "
      "--{}{}.held_out=PREFIX",
      with_place(loaded, "train.validate_every"), kSourcePrefix, sources.front().name);
}

void check_retention(const Loaded& loaded) {
  const RunConfig& c = loaded.config;
  if (c.checkpoint.keep_last == 0 && (c.checkpoint.keep_every != 0 || c.checkpoint.keep_best != 0))
    throw ConfigError(
        "{}: all checkpoints stay anyway, because {}; say how many of the newest are enough",
        with_place(loaded, c.checkpoint.keep_every != 0 ? "checkpoint.keep_every" : "checkpoint.keep_best"),
        with_place(loaded, "checkpoint.keep_last"));
  if (c.checkpoint.keep_best != 0 && c.train.validate_every == 0)
    throw ConfigError("{}: no checkpoint has a validation loss, because {}",
                      with_place(loaded, "checkpoint.keep_best"), with_place(loaded, "train.validate_every"));
}

void check_spikes(const Loaded& loaded) {
  const RunConfig& c = loaded.config;
  if (c.train.spike_threshold == 0.0) return;
  if (c.checkpoint.every == 0)
    throw ConfigError("{}: there is no checkpoint to go back to, because {}",
                      with_place(loaded, "train.spike_threshold"), with_place(loaded, "checkpoint.every"));
  const int64_t needed = c.train.spike_back + std::max(c.train.spike_steps, c.train.max_skipped_steps + 1);
  if (c.checkpoint.keep_last != 0 && (c.checkpoint.keep_last - 1) * c.checkpoint.every < needed)
    throw ConfigError(
        "{}: with {} the checkpoints that stay do not reach back {} steps, which {} and {} may ask for; keep "
        "{}",
        with_place(loaded, "checkpoint.keep_last"), with_place(loaded, "checkpoint.every"), needed,
        with_place(loaded, "train.spike_back"),
        with_place(loaded, c.train.spike_steps > c.train.max_skipped_steps ? "train.spike_steps"
                                                                           : "train.max_skipped_steps"),
        (needed + c.checkpoint.every - 1) / c.checkpoint.every + 1);
}

void check_recompute(const Loaded& loaded) {
  const RunConfig& c = loaded.config;
  if (c.train.recompute != model::Recompute::none &&
      c.pipeline_schedule == parallel::PipelineSchedule::zero_bubble_h1)
    throw ConfigError("{}: {} keeps activations for a later pass; use one of them without the other",
                      with_place(loaded, "train.recompute"), with_place(loaded, "parallel.schedule"));
  if (c.train.recompute == model::Recompute::none && c.train.recompute_layers != 0)
    throw ConfigError("{}: needs {} to be selective or full", with_place(loaded, "train.recompute_layers"),
                      with_place(loaded, "train.recompute"));
}

void check_samples(const Loaded& loaded) {
  const RunConfig& c = loaded.config;
  with_origin(loaded, [&] { data::sample_lengths(c.data, c.model.has_encoder()); });
  if (c.model.has_encoder() && c.data.bidirectional_input)
    throw ConfigError("{}: a RedLLM's encoder is bidirectional anyway; this is for {} set to dec",
                      with_place(loaded, "data.bidirectional_input"), with_place(loaded, "model.kind"));
}

void check_sources(const Loaded& loaded) {
  const auto& sources = loaded.config.data.sources;
  if (sources.empty())
    throw ConfigError(
        "no source of data is given; add to a --config file a section such as\n"
        "  [data.source.wiki]\n  tokens = data/wiki\nor --data.source.wiki.tokens=data/wiki");
  for (const data::SourceConfig& source : sources) {
    if (!source.tokens.empty()) continue;
    const std::string prefix = std::string(kSourcePrefix) + source.name;
    const auto first = loaded.places.lower_bound(prefix + ".");
    throw ConfigError(
        "{}: [{}] names no tokens; give tokens = PREFIX there. A section of a later file replaces "
        "an earlier one whole; to change one key alone use --{}.KEY=value",
        first == loaded.places.end() ? "default" : first->second.to_string(), prefix, prefix);
  }
  // A source whose share is below one sample of a block is refused by the mixture itself.
  std::vector<data::Mixture::Share> shares;
  shares.reserve(sources.size());
  for (const data::SourceConfig& source : sources) shares.push_back({source.name, source.weight});
  with_origin(loaded, [&] { data::Mixture(shares, loaded.config.data.block, loaded.config.data.seed); });
}

}  // namespace

void validate(const Loaded& loaded, Use use) {
  check_needed(loaded, use);
  with_origin(loaded, [&] { model::validate(loaded.config.model); });
  check_parallel(loaded);
  check_samples(loaded);
  if (use == kModelUse) return;
  check_batch(loaded);
  check_recompute(loaded);
  if (use == kBenchUse) return;
  check_train(loaded);
  check_sources(loaded);
  check_validation(loaded);
  check_retention(loaded);
  check_spikes(loaded);
}

}  // namespace red::config
