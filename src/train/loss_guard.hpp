// Holds the loss of each step against those before it: a step that is not finite, and losses that jump. It
// only judges; what follows, the trainer does. The same losses give the same verdicts, on every rank and
// after a resume from state().
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace red::train {

struct LossGuardOptions {
  int64_t max_not_finite = 10;  ///< steps in a row
  double threshold = 0.0;       ///< multiple of the spread above the median that is high; 0: no loss is
  int64_t window = 128;     ///< losses that median and spread are of; until there are so many, none is high
  int64_t spike_steps = 3;  ///< high losses in a row that are a spike
};

class LossGuard {
 public:
  enum class Verdict {
    fine,
    high,                ///< not yet a spike
    spike,               ///< the spike_steps-th high loss in a row, or a later one
    not_finite,          ///< the step was skipped
    too_many_not_finite  ///< more than max_not_finite in a row
  };

  explicit LossGuard(const LossGuardOptions& options);

  /// Of the next step. A loss that is high is none of those that later ones are held against.
  Verdict add(double loss, bool applied);

  /// Steps of which the last verdict speaks: the row of high, or of not finite ones.
  int64_t in_a_row() const { return in_a_row_; }
  /// Above which a loss is high, from what was known before the last step; infinity: nothing is.
  double limit() const { return limit_; }
  /// The highest of the row of high losses; minus infinity where the row is of steps that were not finite.
  double high() const { return high_; }
  double median() const { return median_; }
  double spread() const { return spread_; }

  /// Begins anew: what is high now is no longer held against anything.
  void forget();
  /// The losses and the row of high ones, as text; a row of steps that were not finite begins anew.
  std::string state() const;
  /// Throws DataError for what is no state. Losses beyond the window are left out.
  void restore(std::string_view state);

 private:
  void find_limit();

  LossGuardOptions options_;
  std::vector<double> losses_;  ///< a ring of the last `window` that were not high; the next goes to next_
  std::size_t next_ = 0;
  std::vector<double> sorted_;  ///< scratch
  int64_t in_a_row_ = 0;
  bool row_is_high_ = false;  ///< otherwise of steps that were not finite
  double limit_, high_, median_ = 0.0, spread_ = 0.0;
};

}  // namespace red::train
