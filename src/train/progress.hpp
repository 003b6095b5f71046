// The live line of a run on standard error: step, loss, tokens/s, share of peak, time left. On a terminal it
// is rewritten in place; elsewhere a line is printed at most every few seconds.
#pragma once

#include <chrono>
#include <string>

#include "train/metrics.hpp"

namespace red::train {

class Progress {
 public:
  Progress(int64_t total_steps, bool enabled);
  ~Progress();
  void show(const StepMetrics& metrics);
  /// Ends the live line, so that a log line can follow.
  void end_line();

 private:
  int64_t total_steps_;
  bool enabled_, terminal_, line_open_ = false;
  double seconds_per_step_ = 0.0;  ///< smoothed
  std::chrono::steady_clock::time_point last_{};
};

/// "1 d 03 h", "2 h 05 min", "4 min 09 s", "12 s".
std::string duration(double seconds);

}  // namespace red::train
