// Samples that a run passes over, by their global index: data.skip_samples, and what the run itself left out
// when it went back to an earlier checkpoint. The samples of a step are the next global_batch ones that are
// in none of these ranges, so a run with ranges is as much a function of its configuration as one without.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace red::data {

class SampleRanges {
 public:
  struct Range {
    uint64_t first = 0, last = 0;  ///< both included
    bool operator==(const Range&) const = default;
  };
  static constexpr uint64_t kLargest = uint64_t{1} << 62;

  /// Samples first ... last; first <= last <= kLargest.
  void add(uint64_t first, uint64_t last);
  void add(const SampleRanges& others);

  bool empty() const { return ranges_.empty(); }
  /// In order; none touches another.
  const std::vector<Range>& ranges() const { return ranges_; }
  bool operator==(const SampleRanges&) const = default;

  /// The n-th sample, counted from 0, of those from `index` on that are in no range.
  uint64_t at(uint64_t index, uint64_t n) const;
  /// The index behind the first `count` of them: where the samples after those begin.
  uint64_t behind(uint64_t index, uint64_t count) const {
    return count == 0 ? index : at(index, count - 1) + 1;
  }
  /// The first of the last `count` of them before `index`; 0 where there are not so many.
  uint64_t before(uint64_t index, uint64_t count) const;
  /// Of the samples first ... last, those that are in no range, as ranges.
  SampleRanges outside(uint64_t first, uint64_t last) const;

  std::string to_string() const;  ///< "19200-19215,19300"

 private:
  std::vector<Range> ranges_;
};

/// Reads what to_string() writes; returns what is wrong with the text, "" when nothing is.
std::string parse_sample_ranges(std::string_view text, SampleRanges& result);

}  // namespace red::data
