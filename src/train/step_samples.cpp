#include "train/step_samples.hpp"

#include <fmt/format.h>

#include <limits>
#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "checkpoint/checkpoint.hpp"
#include "checkpoint/folders.hpp"
#include "config/parse.hpp"
#include "train/run_directory.hpp"
#include "train/run_status.hpp"
#include "train/step_mark.hpp"

namespace red::train {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kTailBytes = int64_t{1} << 20;

/// Behind so many steps the next sample is this one.
struct Known {
  int64_t steps = 0;
  uint64_t next_sample = 0;
  std::string from = "the run's beginning";
};

/// The newest checkpoint of fewer steps than `step`; those that cannot be read are passed over.
Known known_from_checkpoints(const fs::path& run_dir, int64_t step) {
  const fs::path dir = checkpoints_dir(run_dir);
  if (!fs::is_directory(dir)) return {};
  for (const checkpoint::FoundCheckpoint& found : checkpoint::list_checkpoints(dir)) {
    if (found.step >= step) continue;
    try {
      const checkpoint::Metadata metadata = checkpoint::read_metadata(dir / found.name);
      return {metadata.step, metadata.sample_cursor, fmt::format("the checkpoint of step {}", metadata.step)};
    } catch (const Error&) {
      continue;  // damaged: an older one will do
    }
  }
  return {};
}

/// The same from the last steps that were logged.
Known known_from_metrics(const fs::path& run_dir, int64_t step) {
  Known known;
  for (const std::string& line : last_lines(run_dir / "metrics.jsonl", kTailBytes)) {
    const auto json = nlohmann::json::parse(line, nullptr, false);
    if (!json.is_object() || !json.contains("first_sample")) continue;
    const int64_t logged = json.value("step", int64_t{0});
    if (logged < 1 || logged > step || logged <= known.steps) continue;
    known = {logged - 1, json.value("first_sample", uint64_t{0}),
             fmt::format("step {} in metrics.jsonl", logged)};
  }
  return known;
}

}  // namespace

config::RunConfig configuration_of_run(const fs::path& run_dir) {
  const fs::path path = run_dir / "configuration.ini";
  if (!fs::exists(path))
    throw ConfigError(
        "'{}' is no run's folder: it has no configuration.ini; give the train.run_dir of a training",
        run_dir.string());
  return config::load({.base = {}, .files = {path}, .overrides = {}}).config;
}

int64_t step_to_look_at(const fs::path& run_dir) {
  if (const auto marked = read_step_mark(run_dir)) return *marked;
  return known_from_checkpoints(run_dir, std::numeric_limits<int64_t>::max()).steps + 1;
}

StepSamples samples_of_step(const fs::path& run_dir, const config::RunConfig& config, int64_t step) {
  Known known = known_from_checkpoints(run_dir, step);
  const Known logged = known_from_metrics(run_dir, step);
  if (logged.steps > known.steps) known = logged;
  StepSamples samples;
  samples.step = step;
  samples.count = config.train.global_batch;
  samples.left_out = config.data.skip_samples;
  for (const RunReturn& r : read_returns(run_dir)) samples.left_out.add(r.left_out);
  samples.counted_from = known.from;
  const auto batch = static_cast<uint64_t>(config.train.global_batch);
  const uint64_t behind =
      samples.left_out.behind(known.next_sample, static_cast<uint64_t>(step - 1 - known.steps) * batch);
  samples.first = samples.left_out.at(behind, 0);
  samples.last = samples.left_out.at(behind, batch - 1);
  return samples;
}

}  // namespace red::train
