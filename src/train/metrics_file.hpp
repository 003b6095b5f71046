// RUN/metrics.jsonl: one JSON object a line for each step that is logged, in the order of steps.
#pragma once

#include <optional>

#include "train/metrics.hpp"
#include "train/record_file.hpp"

namespace red::train {

class MetricsFile final : public MetricsSink {
 public:
  /// Opens for appending. Lines of steps after `last_step` belong to a future that a resume has called off:
  /// they are moved to FILE.after-step-N.removed, and the rest is rewritten aside and renamed. Throws
  /// IoError.
  MetricsFile(const std::filesystem::path& path, int64_t last_step);

  std::string name() const override { return file_->path().string(); }
  void write(const StepMetrics& metrics) override { file_->append(to_json(metrics) + "\n"); }

 private:
  std::optional<RecordFile> file_;  ///< opened when the old one is cut
};

}  // namespace red::train
