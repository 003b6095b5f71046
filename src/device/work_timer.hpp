// How long work on a stream takes where it is done. On a GPU a call comes back when its work is asked for, so
// a clock of the host would tell how long asking took: there events are recorded, which nobody waits for.
#pragma once

#include <memory>
#include <span>

#include "device/stream.hpp"

namespace red {

/// Sums of stretches of a stream's work, by kind. One stretch at a time.
class WorkTimer {
 public:
  WorkTimer(Stream& stream, int num_kinds);
  ~WorkTimer();
  WorkTimer(const WorkTimer&) = delete;
  WorkTimer& operator=(const WorkTimer&) = delete;

  /// What the stream is given from here to end() is of this kind. What it waits for in between is in it.
  void begin(int kind);
  void end();

  /// Seconds of each kind in the stretches since the last call; the stream has been synchronized behind them.
  /// Empty on the CPU, where work is done when a call comes back and any clock will do.
  std::span<const double> collect();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace red
