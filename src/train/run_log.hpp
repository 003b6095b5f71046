// RUN/runs.jsonl: every start of a run, where its training began, and how it ended, one JSON object a line,
// only ever added to. A start without an end is a run that is alive or died without a word.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "data/sample_ranges.hpp"
#include "train/run_lock.hpp"

namespace red::train {

struct RunEnd {
  double time = 0.0;  ///< seconds since 1970
  int code = 0;       ///< the program's exit code
  std::string reason;
  int64_t step = 0;  ///< the last that was done
};

struct RunStart {
  RunHolder holder;
  double time = 0.0;  ///< seconds since 1970
  int num_ranks = 1;
  std::string layout;
  std::optional<int64_t> from_step;  ///< steps done when training began; nothing: it never did
  int64_t steps = 0;                 ///< train.steps then
  std::string checkpoint;            ///< that it went on from; empty: none
  std::optional<RunEnd> end;
};

/// To an earlier checkpoint, because the loss jumped or steps were not finite.
struct RunReturn {
  double time = 0.0;  ///< seconds since 1970
  int64_t step = 0;   ///< behind which it was
  int64_t to_step = 0;
  data::SampleRanges left_out;
  std::string reason;
};

std::filesystem::path run_log_path(const std::filesystem::path& run_dir);

// Each adds one line and syncs it to the disk; a failure is only logged: the run matters more.
void log_start(const std::filesystem::path& run_dir, const RunStart& start) noexcept;
void log_training(const std::filesystem::path& run_dir, const RunStart& start) noexcept;
void log_end(const std::filesystem::path& run_dir, const std::string& id, const RunEnd& end) noexcept;

void log_return(const std::filesystem::path& run_dir, const std::string& id, const RunReturn& r) noexcept;

/// All starts, oldest first; lines that a crash cut off are passed over. Empty where there is no file.
std::vector<RunStart> read_run_log(const std::filesystem::path& run_dir);

/// All returns of all starts, oldest first.
std::vector<RunReturn> read_returns(const std::filesystem::path& run_dir);

double seconds_since_1970();

}  // namespace red::train
