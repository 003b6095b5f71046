// How long work on a stream takes where it is done. On a GPU a call comes back when its work is asked for, so
// a clock of the host would tell how long asking took: there events are recorded, which nobody waits for.
#pragma once

#include <memory>
#include <span>

#include "device/stream.hpp"

namespace red {

/// Sums of stretches of a stream's work, by kind. One stretch at a time. What the stream waits for other
/// ranks in them is told apart: it says nothing about this one.
class WorkTimer {
 public:
  WorkTimer(Stream& stream, int num_kinds);
  ~WorkTimer();
  WorkTimer(const WorkTimer&) = delete;
  WorkTimer& operator=(const WorkTimer&) = delete;

  /// From here to collect(), whoever makes the stream wait for other ranks says so (parallel/nccl_context).
  void start();

  /// What the stream is given from here to end() is of this kind.
  void begin(int kind);
  void end();

  /// What the stream is given from here to end_wait() is a wait for other ranks, in a stretch or in none.
  void begin_wait();
  void end_wait();

  /// Seconds of each kind in the stretches since the last call, without waits for other ranks; the stream has
  /// been synchronized behind them. Empty on the CPU, where work is done when a call comes back and any clock
  /// will do.
  std::span<const double> collect();
  /// As of the last collect(): seconds of waits for other ranks in each kind, and last those in no stretch.
  std::span<const double> waited() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace red
