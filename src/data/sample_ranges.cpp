#include "data/sample_ranges.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "base/check.hpp"

namespace red::data {

void SampleRanges::add(uint64_t first, uint64_t last) {
  RED_CHECK(first <= last && last <= kLargest, "samples {} to {}", first, last);
  Range merged{first, last};
  const auto apart = [&](const Range& r) { return r.last + 1 < merged.first || merged.last + 1 < r.first; };
  std::vector<Range> kept;
  for (const Range& range : ranges_) {
    if (apart(range)) {
      kept.push_back(range);
    } else {
      merged = {std::min(merged.first, range.first), std::max(merged.last, range.last)};
    }
  }
  const auto place =
      std::find_if(kept.begin(), kept.end(), [&](const Range& r) { return r.first > merged.last; });
  kept.insert(place, merged);
  ranges_ = std::move(kept);
}

void SampleRanges::add(const SampleRanges& others) {
  for (const Range& range : others.ranges_) add(range.first, range.last);
}

uint64_t SampleRanges::at(uint64_t index, uint64_t n) const {
  for (const Range& range : ranges_) {
    if (range.last < index) continue;
    const uint64_t before = range.first > index ? range.first - index : 0;
    if (n < before) break;
    n -= before;
    index = range.last + 1;
  }
  return index + n;
}

uint64_t SampleRanges::before(uint64_t index, uint64_t count) const {
  for (auto range = ranges_.rbegin(); range != ranges_.rend(); ++range) {
    if (range->first >= index) continue;
    const uint64_t behind = range->last + 1 < index ? index - range->last - 1 : 0;
    if (count <= behind) break;
    count -= behind;
    index = range->first;
  }
  return index > count ? index - count : 0;
}

SampleRanges SampleRanges::outside(uint64_t first, uint64_t last) const {
  SampleRanges result;
  while (true) {
    first = at(first, 0);
    if (first > last) return result;
    const auto next =
        std::find_if(ranges_.begin(), ranges_.end(), [&](const Range& r) { return r.first > first; });
    const uint64_t end = next == ranges_.end() ? last : std::min(last, next->first - 1);
    result.add(first, end);
    first = end + 1;
  }
}

std::string SampleRanges::to_string() const {
  std::string text;
  for (const Range& range : ranges_) {
    text += fmt::format("{}{}", text.empty() ? "" : ",", range.first);
    if (range.last != range.first) text += fmt::format("-{}", range.last);
  }
  return text;
}

namespace {

/// The whole text as an index.
bool parse_index(std::string_view text, uint64_t& index) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), index);
  return error == std::errc() && end == text.data() + text.size() && index <= SampleRanges::kLargest;
}

}  // namespace

std::string parse_sample_ranges(std::string_view text, SampleRanges& result) {
  SampleRanges ranges;
  while (!text.empty()) {
    const std::size_t comma = std::min(text.find(','), text.size());
    const std::string_view part = text.substr(0, comma);
    const std::size_t dash = part.find('-');
    SampleRanges::Range range;
    bool right = parse_index(part.substr(0, dash), range.first);
    range.last = range.first;
    if (dash != std::string_view::npos) right = right && parse_index(part.substr(dash + 1), range.last);
    if (!right) return fmt::format("has a part '{}' that is neither a sample nor FIRST-LAST", part);
    if (range.last < range.first) return fmt::format("has a part '{}' that ends before it begins", part);
    ranges.add(range.first, range.last);
    if (comma + 1 == text.size()) return "ends with a comma";
    text.remove_prefix(std::min(comma + 1, text.size()));
  }
  result = std::move(ranges);
  return {};
}

}  // namespace red::data
