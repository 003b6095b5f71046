// Metrics of a run: one JSON object a line in RUN/metrics.jsonl, written by rank 0.
#pragma once

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "train/engine.hpp"

namespace red::train {

/// What is known about one step.
struct StepMetrics {
  int64_t step = 0;  ///< counted from 1
  StepResult result;
  double learning_rate = 0.0;
  double step_s = 0.0;              ///< wall time
  double tokens_per_s = 0.0;        ///< encoder and decoder tokens of the global batch
  double model_gflops_per_s = 0.0;  ///< of all ranks (docs/flops.md)
  double peak_share = 0.0;          ///< of the measured peak of all ranks; 0: not measured
  double peak_rss_mib = 0.0;        ///< largest of all ranks
  uint64_t first_sample = 0;
  uint64_t sample_digest = 0;
  std::vector<double> phase_s;  ///< slowest rank, in the order of kPhaseNames
};

/// One line, without the line break. Numbers that are not finite become null.
std::string to_json(const StepMetrics& metrics);

class MetricsFile {
 public:
  /// Opens for appending. Lines of steps after `last_step` belong to a future that a resume has called off:
  /// they are moved to FILE.after-step-N.removed, and the rest is rewritten aside and renamed. Throws
  /// IoError.
  MetricsFile(std::filesystem::path path, int64_t last_step);
  void write(const StepMetrics& metrics);

 private:
  struct Close {
    void operator()(std::FILE* f) const { std::fclose(f); }
  };
  std::filesystem::path path_;
  std::unique_ptr<std::FILE, Close> file_;
};

}  // namespace red::train
