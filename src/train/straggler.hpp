// Which ranks are slower than they should be, from the time that each spends on itself: waits for other ranks
// are left out, because one slow rank makes all the others wait. A pure verdict; straggler_watch measures.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <span>
#include <string_view>
#include <vector>

namespace red::train {

/// Of a rank's own time. other: all that is in none of the rest, such as the copies and sums of its messages.
inline constexpr std::array<std::string_view, 5> kOwnPhaseNames = {"data", "forward", "backward", "optimizer",
                                                                   "other"};

/// What a rank spent on itself in a window of steps.
struct OwnTimes {
  std::array<double, kOwnPhaseNames.size()> phase_s{};  ///< seconds a step, in the order of the names
  double work = 1.0;  ///< FLOPs of its samples or any other measure: times are compared per work

  double total() const;
};

struct StragglerRules {
  double slower_by = 0.15;      ///< share of the expected time over it: so 20 % are found in spite of noise
  double least_of_step = 0.02;  ///< and of the step's time, or nobody would notice
  double least_s = 0.001;       ///< and seconds a step: what a machine's other work takes now and then
  int windows_in_a_row = 3;     ///< that it must be slow in before it is named, or not slow in to be let go
  int windows_before_past = 1;  ///< warming up
  int windows_of_past = 5;      ///< that a rank's own past is made of
};

struct Straggler {
  int rank = 0;
  std::size_t phase = 0;    ///< index of kOwnPhaseNames: where most of the excess is
  double own_s = 0.0;       ///< seconds a step, in the last window
  double expected_s = 0.0;  ///< by its peers, or by its own past
  bool by_past = false;     ///< against its own past, while the others keep theirs

  double slowdown() const { return own_s / expected_s; }
};

class StragglerJudge {
 public:
  /// groups[r]: ranks with equal numbers do the same work on their samples. Those of a group are compared
  /// with each other's lower median. All are also compared with their own past, as soon as there is one, by
  /// how that changed for the others.
  explicit StragglerJudge(std::vector<int> groups, const StragglerRules& rules = {});

  /// One window of all ranks, and the wall time of its steps. Returns who counts as slow now, by rank.
  const std::vector<Straggler>& judge(std::span<const OwnTimes> ranks, double step_s);
  const std::vector<Straggler>& named() const { return named_; }

 private:
  struct Record {
    int slow_in_a_row = 0, calm_in_a_row = 0;
    bool named = false;
    std::deque<OwnTimes> past;
  };

  std::vector<Straggler> compare_with_peers(std::span<const OwnTimes> ranks) const;
  std::vector<Straggler> compare_with_past(std::span<const OwnTimes> ranks) const;
  void remember(std::span<const OwnTimes> ranks);
  bool has_past() const;

  std::vector<int> groups_;
  StragglerRules rules_;
  int num_windows_ = 0;
  std::vector<Record> records_;
  std::vector<Straggler> named_;
};

}  // namespace red::train
