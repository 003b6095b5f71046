// Which samples a step of a run has, from the run's folder alone: what to look for, and what to leave out,
// where a step fails every time.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "config/run_config.hpp"
#include "data/sample_ranges.hpp"

namespace red::train {

struct StepSamples {
  int64_t step = 0;
  uint64_t first = 0;  ///< as `last`, of the samples that the step has
  uint64_t last = 0;
  int64_t count = 0;            ///< of them: train.global_batch
  data::SampleRanges left_out;  ///< what the run passes over, also between first and last
  std::string counted_from;     ///< for people: where it is known from

  data::SampleRanges ranges() const { return left_out.outside(first, last); }
};

/// The configuration that the run was last started with. Throws ConfigError when the folder has none.
config::RunConfig configuration_of_run(const std::filesystem::path& run_dir);

/// The step that a process was in when it ended, as far as the folder tells: RUN/at_step, else the first one
/// behind the newest checkpoint.
int64_t step_to_look_at(const std::filesystem::path& run_dir);

/// Counted on from the nearest step before it that is known: of metrics.jsonl, a checkpoint, or the run's
/// beginning; with the global batch and the samples left out that hold now.
StepSamples samples_of_step(const std::filesystem::path& run_dir, const config::RunConfig& config,
                            int64_t step);

}  // namespace red::train
