#include "train/loss_guard.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>

#include "base/error.hpp"

namespace red::train {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
/// Standard deviations of a normal distribution in a median absolute deviation.
constexpr double kDeviations = 1.4826;
/// Of the median: what the spread is at least, so that losses that hardly differ are no reason for alarm.
constexpr double kSmallestSpread = 1e-3;

/// The upper one of an even number. Reorders.
double median_of(std::vector<double>& values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

}  // namespace

LossGuard::LossGuard(const LossGuardOptions& options)
    : options_(options), limit_(kInfinity), high_(-kInfinity) {
  if (options_.threshold <= 0.0) return;
  losses_.reserve(static_cast<std::size_t>(options_.window));
  sorted_.reserve(static_cast<std::size_t>(options_.window));
}

void LossGuard::find_limit() {
  limit_ = kInfinity;
  if (options_.threshold <= 0.0 || static_cast<int64_t>(losses_.size()) < options_.window) return;
  sorted_ = losses_;
  median_ = median_of(sorted_);
  for (double& loss : sorted_) loss = std::abs(loss - median_);
  spread_ = std::max(kDeviations * median_of(sorted_), kSmallestSpread * std::abs(median_));
  limit_ = median_ + options_.threshold * spread_;
}

LossGuard::Verdict LossGuard::add(double loss, bool applied) {
  find_limit();
  const bool high = applied && loss > limit_;
  if (applied && !high) {
    in_a_row_ = 0;
    if (options_.threshold <= 0.0) return Verdict::fine;
    if (static_cast<int64_t>(losses_.size()) < options_.window) {
      losses_.push_back(loss);
    } else {
      losses_[next_] = loss;
      next_ = (next_ + 1) % losses_.size();
    }
    return Verdict::fine;
  }
  in_a_row_ = in_a_row_ > 0 && row_is_high_ == high ? in_a_row_ + 1 : 1;
  high_ = high ? std::max(in_a_row_ > 1 ? high_ : -kInfinity, loss) : -kInfinity;
  row_is_high_ = high;
  if (high) return in_a_row_ >= options_.spike_steps ? Verdict::spike : Verdict::high;
  return in_a_row_ > options_.max_not_finite ? Verdict::too_many_not_finite : Verdict::not_finite;
}

void LossGuard::forget() {
  losses_.clear();
  next_ = 0;
  in_a_row_ = 0;
}

/// Shortest texts that read back as the same numbers, oldest first.
std::string LossGuard::state() const {
  std::string text = fmt::format("{}", row_is_high_ ? in_a_row_ : 0);
  for (std::size_t i = 0; i < losses_.size(); ++i)
    text += fmt::format(" {}", losses_[(next_ + i) % losses_.size()]);
  return text;
}

void LossGuard::restore(std::string_view state) {
  forget();
  std::vector<double> numbers;
  const char* at = state.data();
  const char* const end = at + state.size();
  while (at != end) {
    double number = 0.0;
    const auto [stop, error] = std::from_chars(at, end, number);
    if (error != std::errc() || (stop != end && *stop != ' '))
      throw DataError("checkpoint: '{}' is no list of recent losses", state.substr(0, 40));
    numbers.push_back(number);
    at = stop == end ? end : stop + 1;
  }
  if (numbers.empty() || options_.threshold <= 0.0) return;
  in_a_row_ = static_cast<int64_t>(numbers.front());
  row_is_high_ = in_a_row_ > 0;
  const auto window = static_cast<std::size_t>(options_.window);
  const std::size_t first = numbers.size() - 1 > window ? numbers.size() - window : 1;
  losses_.assign(numbers.begin() + static_cast<std::ptrdiff_t>(first), numbers.end());
}

}  // namespace red::train
