// Where a step's time goes, by phase.
#pragma once

#include <array>
#include <chrono>
#include <numeric>
#include <string>
#include <string_view>

#include "device/work_timer.hpp"
#include "parallel/trace_log.hpp"

namespace red::train {

enum class Phase { data, forward, backward, optimizer, communication, pipeline_wait, kCount };

inline constexpr std::array<std::string_view, 6> kPhaseNames = {
    "data", "forward", "backward", "optimizer", "communication", "pipeline_wait"};

class PhaseTimer {
 public:
  using Clock = std::chrono::steady_clock;

  explicit PhaseTimer(Stream& stream) : work_(stream, static_cast<int>(Phase::kCount)) {}

  void clear() {
    measured_.fill(0.0);
    added_.fill(0.0);
    stream_waited_ = 0.0;
  }
  double seconds(Phase phase) const { return measured_[index(phase)] + added_[index(phase)]; }
  void add(Phase phase, double seconds) { added_[index(phase)] += seconds; }
  /// What the device's stream stood waiting for other ranks; the host's waits are its communicators' to tell.
  double stream_waited() const { return stream_waited_; }

  /// Between these two, what is measured is timed where it is done (device/work_timer.hpp), but for data,
  /// which are the host's. The stream has been synchronized before end_work().
  void begin_work() {
    times_work_ = true;
    before_work_ = measured_;
    work_.start();
  }
  void end_work() {
    times_work_ = false;
    const std::span<const double> seconds = work_.collect(), waited = work_.waited();
    for (std::size_t i = index(Phase::data) + 1; i < seconds.size(); ++i)
      measured_[i] = before_work_[i] + seconds[i];
    // Waits inside other phases count as communication.
    for (std::size_t i = 0; i < seconds.size(); ++i)
      measured_[i == index(Phase::pipeline_wait) ? i : index(Phase::communication)] += waited[i];
    stream_waited_ += std::accumulate(waited.begin(), waited.end(), 0.0);
  }

  /// From now on phases that are no passes of micro-batches, which the executor tells by itself, go there
  /// too.
  void trace(parallel::TraceLog* log) { trace_ = log; }

  static double seconds_since(Clock::time_point begin) {
    return std::chrono::duration<double>(Clock::now() - begin).count();
  }

  /// Adds the time of a call to a phase; returns it.
  template <class F>
  double measure(Phase phase, F&& f) {
    const auto begin = Clock::now();
    if (times_work_) work_.begin(static_cast<int>(phase));
    f();
    if (times_work_) work_.end();
    const double seconds = seconds_since(begin);
    measured_[index(phase)] += seconds;
    if (trace_ != nullptr && is_traced(phase)) {
      const double from = parallel::TraceLog::seconds(begin);
      trace_->slice("phase", std::string(kPhaseNames[index(phase)]), from, from + seconds);
    }
    return seconds;
  }

 private:
  static constexpr std::size_t index(Phase phase) { return static_cast<std::size_t>(phase); }
  static bool is_traced(Phase phase) {
    return phase != Phase::forward && phase != Phase::backward && phase != Phase::pipeline_wait;
  }

  WorkTimer work_;
  bool times_work_ = false;
  parallel::TraceLog* trace_ = nullptr;
  std::array<double, static_cast<std::size_t>(Phase::kCount)> measured_{}, before_work_{}, added_{};
  double stream_waited_ = 0.0;
};

}  // namespace red::train
