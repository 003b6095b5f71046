#include "train/straggler.hpp"

#include <algorithm>
#include <map>
#include <numeric>
#include <utility>

#include "base/check.hpp"

namespace red::train {
namespace {

/// Of an even number of values the smaller of the two in the middle: of two ranks the slower one stands out.
double lower_median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>((values.size() - 1) / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

/// As if the rank had done `work`.
OwnTimes scaled(OwnTimes times, double work) {
  const double factor = times.work > 0.0 ? work / times.work : 1.0;
  for (double& s : times.phase_s) s *= factor;
  times.work = work;
  return times;
}

/// Where `own` is most over `expected`.
std::size_t worst_phase(const OwnTimes& own, const OwnTimes& expected) {
  std::size_t worst = 0;
  for (std::size_t p = 1; p < own.phase_s.size(); ++p) {
    if (own.phase_s[p] - expected.phase_s[p] > own.phase_s[worst] - expected.phase_s[worst]) worst = p;
  }
  return worst;
}

/// Phase by phase.
OwnTimes median_of(const std::vector<OwnTimes>& times) {
  OwnTimes median = times.front();
  std::vector<double> values(times.size());
  for (std::size_t p = 0; p < median.phase_s.size(); ++p) {
    std::transform(times.begin(), times.end(), values.begin(),
                   [p](const OwnTimes& t) { return t.phase_s[p]; });
    median.phase_s[p] = lower_median(values);
  }
  return median;
}

double median_total(const std::vector<OwnTimes>& times) {
  std::vector<double> totals;
  totals.reserve(times.size());
  for (const OwnTimes& t : times) totals.push_back(t.total());
  return lower_median(std::move(totals));
}

}  // namespace

double OwnTimes::total() const {
  return std::accumulate(phase_s.begin(), phase_s.end(), 0.0);
}

StragglerJudge::StragglerJudge(std::vector<int> groups, const StragglerRules& rules)
    : groups_(std::move(groups)), rules_(rules), records_(groups_.size()) {}

std::vector<Straggler> StragglerJudge::compare_with_peers(std::span<const OwnTimes> ranks) const {
  std::map<int, std::vector<int>> members;
  for (std::size_t r = 0; r < groups_.size(); ++r) members[groups_[r]].push_back(static_cast<int>(r));
  std::vector<Straggler> result;
  for (const auto& [group, peers] : members) {
    if (peers.size() < 2) continue;
    double work = 0.0;
    for (const int r : peers) work += ranks[r].work / static_cast<double>(peers.size());
    std::vector<OwnTimes> times;
    times.reserve(peers.size());
    for (const int r : peers) times.push_back(scaled(ranks[r], work));
    const double expected = median_total(times);
    const OwnTimes phases = median_of(times);
    for (std::size_t i = 0; i < peers.size(); ++i) {
      if (times[i].total() > (1.0 + rules_.slower_by) * expected)
        result.push_back({peers[i], worst_phase(times[i], phases), times[i].total(), expected, false});
    }
  }
  return result;
}

bool StragglerJudge::has_past() const {
  return records_.size() > 1 && static_cast<int>(records_.front().past.size()) == rules_.windows_of_past;
}

/// What changed for all of them, a longer sequence or a warmer room, is nobody's fault.
std::vector<Straggler> StragglerJudge::compare_with_past(std::span<const OwnTimes> ranks) const {
  std::vector<Straggler> result;
  if (!has_past()) return result;
  std::vector<OwnTimes> before;
  std::vector<double> expected, changes;
  for (std::size_t r = 0; r < records_.size(); ++r) {
    std::vector<OwnTimes> past;
    for (const OwnTimes& window : records_[r].past) past.push_back(scaled(window, ranks[r].work));
    before.push_back(median_of(past));
    expected.push_back(median_total(past));
    changes.push_back(ranks[r].total() / expected.back());
  }
  const double usual = std::max(1.0, lower_median(changes));
  for (std::size_t r = 0; r < records_.size(); ++r) {
    if (changes[r] > (1.0 + rules_.slower_by) * usual)
      result.push_back({static_cast<int>(r), worst_phase(ranks[r], before[r]), ranks[r].total(),
                        expected[r] * usual, true});
  }
  return result;
}

void StragglerJudge::remember(std::span<const OwnTimes> ranks) {
  if (++num_windows_ <= rules_.windows_before_past) return;
  for (std::size_t r = 0; r < records_.size(); ++r) {
    if (static_cast<int>(records_[r].past.size()) < rules_.windows_of_past)
      records_[r].past.push_back(ranks[r]);
  }
}

const std::vector<Straggler>& StragglerJudge::judge(std::span<const OwnTimes> ranks, double step_s) {
  RED_CHECK(ranks.size() == records_.size(), "times of {} ranks, of {} expected", ranks.size(),
            records_.size());
  std::vector<Straggler> slow = compare_with_peers(ranks);
  for (const Straggler& s : compare_with_past(ranks)) {
    if (std::none_of(slow.begin(), slow.end(), [&](const Straggler& other) { return other.rank == s.rank; }))
      slow.push_back(s);
  }
  const double least_s = std::max(rules_.least_of_step * step_s, rules_.least_s);
  std::erase_if(slow, [&](const Straggler& s) { return s.own_s - s.expected_s < least_s; });
  remember(ranks);
  std::vector<Straggler> named;
  for (std::size_t r = 0; r < records_.size(); ++r) {
    Record& record = records_[r];
    const auto found = std::find_if(slow.begin(), slow.end(),
                                    [&](const Straggler& s) { return s.rank == static_cast<int>(r); });
    const bool is_slow = found != slow.end();
    record.slow_in_a_row = is_slow ? record.slow_in_a_row + 1 : 0;
    record.calm_in_a_row = is_slow ? 0 : record.calm_in_a_row + 1;
    if (record.slow_in_a_row >= rules_.windows_in_a_row) record.named = true;
    if (record.calm_in_a_row >= rules_.windows_in_a_row) record.named = false;
    if (!record.named) continue;
    const auto before = std::find_if(named_.begin(), named_.end(),
                                     [&](const Straggler& s) { return s.rank == static_cast<int>(r); });
    named.push_back(is_slow ? *found : *before);
  }
  named_ = std::move(named);
  return named_;
}

}  // namespace red::train
