// Watches all ranks of a run for those that slow it down: every window of steps one all-gather of each rank's
// own time by phase, a verdict that is the same everywhere, and a line in the log when it changes.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "train/engine.hpp"
#include "train/metrics.hpp"
#include "train/straggler.hpp"

namespace red::train {

/// Which ranks do the same work, for StragglerJudge: those of a stage, all of them where heads and FFN
/// columns divide evenly over the tensor axis, else those with the same tensor index.
std::vector<int> groups_of_peers(const parallel::Layout& layout, const model::ModelConfig& model);

class StragglerWatch {
 public:
  /// A window has `every` steps; 0: nothing is watched. `before_log` is called before a line goes to the log.
  /// Collective. The engine must outlive it.
  StragglerWatch(Engine& engine, int64_t every, std::function<void()> before_log);

  /// On every rank, behind every step, before the engine's timer is cleared: its wall time, and of that what
  /// the host spent waiting for other ranks; the timer knows what a device's stream did. Collective at the
  /// end of a window.
  void add(int64_t step, std::span<const data::MicroBatch> batches, double step_s, double waited_s);

  /// Puts what is known into the metrics of a step: who is slow, and once per window everybody's time.
  void describe(StepMetrics& metrics);

 private:
  void gather();
  void end_window(int64_t step);
  void report(int64_t step, const std::vector<Straggler>& before);
  std::string name_of(int rank) const;

  Engine& engine_;
  const int64_t every_;
  std::function<void()> before_log_;
  std::vector<std::string> hosts_;  ///< by rank
  StragglerJudge judge_;
  int64_t num_steps_ = 0;  ///< of the window, as all that follows
  OwnTimes own_;           ///< summed
  double step_s_ = 0.0;    ///< summed
  std::vector<OwnTimes> ranks_;
  std::vector<double> rows_;  ///< (ranks, phases and work): what is gathered
  bool described_ = true;     ///< everybody's time of the last window is in the metrics
};

}  // namespace red::train
