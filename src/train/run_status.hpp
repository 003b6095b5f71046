// How a run is doing, or how it ended, from its folder alone: runs.jsonl, run.lock, the end of metrics.jsonl,
// configuration.ini and checkpoints/. Nothing is written, and whatever a running process has only half
// written is passed over.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "train/metrics.hpp"
#include "train/run_log.hpp"

namespace red::train {

enum class RunState {
  running,   ///< its lock is held by a process that lives, or on another host was renewed within a minute
  finished,  ///< exit code 0
  stopped,   ///< by a signal: saved, and can go on
  failed,    ///< with an exit code and a text
  died,      ///< started, and neither alive nor ended: killed, or its host is gone
  unknown    ///< nothing tells: no runs.jsonl
};
std::string_view name_of(RunState state);

/// Of the lines of metrics.jsonl that are near its end.
struct Progressed {
  int64_t step = 0;
  double time = 0.0;  ///< at the last step's end, seconds since 1970
  std::optional<double> loss;
  /// Means of what is recent.
  std::optional<double> tokens_per_s, gflops_per_s, peak_share, mfu, step_s;
  std::optional<double> seconds_per_step;  ///< validation, saving and all, over what is recent
  std::optional<double> validation_loss;   ///< mean over sources
  int64_t validation_step = 0;
  std::vector<SlowRank> stragglers;  ///< as of the last line
  int64_t skipped = 0;               ///< steps that were not applied, among what is near the end
};

struct CheckpointStatus {
  std::filesystem::path folder;
  int64_t step = 0;
  double time = 0.0;        ///< when it was published, seconds since 1970
  uint64_t num_bytes = 0;   ///< of its shard files
  bool every_byte = false;  ///< what was compared: every byte, or the index and the files' sizes
  std::vector<std::string> damage;
};

struct RunStatus {
  RunState state = RunState::unknown;
  int64_t steps = 0;             ///< train.steps
  std::string model;             ///< model.name
  std::vector<RunStart> starts;  ///< oldest first
  std::vector<RunReturn> returns;
  std::optional<LockSighting> lock;
  std::optional<Progressed> progressed;
  std::optional<CheckpointStatus> checkpoint;  ///< the newest
  int num_checkpoints = 0;
  std::vector<std::string> set_aside;  ///< damaged and incomplete ones
  std::optional<double> left_s;        ///< of a running run, at its recent pace
};

/// `verify`: compares every byte of the newest checkpoint with its checksum, else opens it (the index with
/// its checksum, sizes of files). Throws ConfigError when the folder is no run's, IoError when it cannot be
/// read.
RunStatus read_run_status(const std::filesystem::path& run_dir, bool verify);

/// The last `num_bytes` of a file's whole lines, in order; empty where there is none. Throws IoError.
std::vector<std::string> last_lines(const std::filesystem::path& path, int64_t num_bytes);

}  // namespace red::train
