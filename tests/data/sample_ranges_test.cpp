#include "data/sample_ranges.hpp"

#include <gtest/gtest.h>

#include <set>

#include "base/philox.hpp"

namespace red::data {
namespace {

SampleRanges parsed(std::string_view text) {
  SampleRanges ranges;
  EXPECT_EQ(parse_sample_ranges(text, ranges), "") << text;
  return ranges;
}

TEST(SampleRangesTest, TouchingRangesBecomeOne) {
  EXPECT_EQ(parsed("").to_string(), "");
  EXPECT_EQ(parsed("7").to_string(), "7");
  EXPECT_EQ(parsed("30-39,10-19,20-29,50").to_string(), "10-39,50");
  EXPECT_EQ(parsed("10-19,15-17,5-12").to_string(), "5-19");
  EXPECT_EQ(parsed("0-0,2-2,1").to_string(), "0-2");
  EXPECT_EQ(parsed("5,3,1"), parsed("1,3,5"));
}

TEST(SampleRangesTest, WrongTextsAreNamed) {
  for (const char* text :
       {"a", "-3", "3-", "3-2", "1,,2", "1,", "1 2", "99999999999999999999", "5000000000000000000"}) {
    SampleRanges ranges = parsed("1-4");
    EXPECT_NE(parse_sample_ranges(text, ranges), "") << text;
    EXPECT_EQ(ranges, parsed("1-4")) << text;
  }
}

TEST(SampleRangesTest, SamplesAreThoseOutside) {
  const SampleRanges ranges = parsed("0-1,4,8-9");
  const std::vector<uint64_t> kept = {2, 3, 5, 6, 7, 10, 11, 12};
  for (uint64_t n = 0; n < kept.size(); ++n) EXPECT_EQ(ranges.at(0, n), kept[n]);
  EXPECT_EQ(ranges.at(4, 0), 5U);
  EXPECT_EQ(ranges.at(9, 1), 11U);
  EXPECT_EQ(ranges.behind(0, 0), 0U);
  EXPECT_EQ(ranges.behind(0, 2), 4U);  // not yet past 4: what lies ahead may still change
  EXPECT_EQ(ranges.behind(4, 3), 8U);
  EXPECT_EQ(ranges.before(12, 4), 6U);
  EXPECT_EQ(ranges.before(6, 100), 0U);
  EXPECT_EQ(ranges.before(6, 0), 6U);
  EXPECT_EQ(ranges.outside(2, 7).to_string(), "2-3,5-7");
  EXPECT_EQ(ranges.outside(8, 9).to_string(), "");
  EXPECT_EQ(SampleRanges().outside(3, 5).to_string(), "3-5");
}

TEST(SampleRangesTest, AgreeWithASetOfSamples) {
  for (uint64_t trial = 0; trial < 200; ++trial) {
    SampleRanges ranges;
    std::set<uint64_t> left_out;
    for (uint64_t i = 0; i < trial % 7; ++i) {
      const PhiloxBlock die = philox(17, trial, i);
      const uint64_t first = die[0] % 60, last = first + die[1] % 9;
      ranges.add(first, last);
      for (uint64_t sample = first; sample <= last; ++sample) left_out.insert(sample);
    }
    for (uint64_t index = 0; index < 80; ++index) {
      std::vector<uint64_t> kept;
      for (uint64_t sample = index; kept.size() < 5; ++sample) {
        if (!left_out.contains(sample)) kept.push_back(sample);
      }
      for (uint64_t n = 0; n < kept.size(); ++n)
        EXPECT_EQ(ranges.at(index, n), kept[n]) << ranges.to_string();
      if (left_out.contains(index)) continue;
      for (uint64_t n = 1; n <= kept.size(); ++n)
        EXPECT_EQ(ranges.before(kept[n - 1] + 1, n), index) << ranges.to_string() << " " << n;
    }
  }
}

}  // namespace
}  // namespace red::data
