// Where a step's time goes, by phase.
#pragma once

#include <array>
#include <chrono>
#include <string_view>

namespace red::train {

enum class Phase { data, forward, backward, optimizer, communication, pipeline_wait, kCount };

inline constexpr std::array<std::string_view, 6> kPhaseNames = {
    "data", "forward", "backward", "optimizer", "communication", "pipeline_wait"};

class PhaseTimer {
 public:
  using Clock = std::chrono::steady_clock;

  void clear() { seconds_.fill(0.0); }
  double seconds(Phase phase) const { return seconds_[static_cast<std::size_t>(phase)]; }
  void add(Phase phase, double seconds) { seconds_[static_cast<std::size_t>(phase)] += seconds; }

  static double seconds_since(Clock::time_point begin) {
    return std::chrono::duration<double>(Clock::now() - begin).count();
  }

  /// Adds the time of a call to a phase; returns it.
  template <class F>
  double measure(Phase phase, F&& f) {
    const auto begin = Clock::now();
    f();
    const double seconds = seconds_since(begin);
    add(phase, seconds);
    return seconds;
  }

 private:
  std::array<double, static_cast<std::size_t>(Phase::kCount)> seconds_{};
};

}  // namespace red::train
