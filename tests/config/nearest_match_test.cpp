#include "config/nearest_match.hpp"

#include <gtest/gtest.h>

#include <random>
#include <vector>

namespace red::config {
namespace {

/// Straight from the definition, without a table: for short words.
std::size_t reference_distance(std::string_view a, std::string_view b) {
  if (a.empty()) return b.size();
  if (b.empty()) return a.size();
  const std::string_view a1 = a.substr(1), b1 = b.substr(1);
  std::size_t best = std::min({reference_distance(a1, b) + 1, reference_distance(a, b1) + 1,
                               reference_distance(a1, b1) + (a[0] == b[0] ? 0 : 1)});
  if (a.size() > 1 && b.size() > 1 && a[0] == b[1] && a[1] == b[0])
    best = std::min(best, reference_distance(a.substr(2), b.substr(2)) + 1);
  return best;
}

TEST(EditDistance, CountsEachKindOfEditOnce) {
  EXPECT_EQ(edit_distance("", ""), 0U);
  EXPECT_EQ(edit_distance("abc", ""), 3U);
  EXPECT_EQ(edit_distance("micro_batch", "micro_batch"), 0U);
  EXPECT_EQ(edit_distance("micro_bach", "micro_batch"), 1U);    // a letter left out
  EXPECT_EQ(edit_distance("micro_baatch", "micro_batch"), 1U);  // one too many
  EXPECT_EQ(edit_distance("micro_betch", "micro_batch"), 1U);   // a wrong one
  EXPECT_EQ(edit_distance("micor_batch", "micro_batch"), 1U);   // two swapped
  EXPECT_EQ(edit_distance("Micro-Batch", "micro_batch"), 0U);   // case and hyphen
  EXPECT_EQ(edit_distance("kitten", "sitting"), 3U);
}

TEST(EditDistance, EqualsTheDefinitionOnRandomWords) {
  std::mt19937 random(7);
  for (int trial = 0; trial < 500; ++trial) {
    std::string a(random() % 7, ' '), b(random() % 7, ' ');
    for (char& c : a) c = static_cast<char>('a' + random() % 3);
    for (char& c : b) c = static_cast<char>('a' + random() % 3);
    EXPECT_EQ(edit_distance(a, b), reference_distance(a, b)) << a << " " << b;
    EXPECT_EQ(edit_distance(a, b), edit_distance(b, a)) << a << " " << b;
  }
}

TEST(NearestMatch, TakesTheNearestAndRefusesGuesses) {
  const std::vector<std::string> words = {"data", "tensor", "encoder_stages", "decoder_stages"};
  EXPECT_EQ(nearest_match("tensr", words), "tensor");
  EXPECT_EQ(nearest_match("dcoder_stages", words), "decoder_stages");
  EXPECT_EQ(nearest_match("date", words), "data");
  EXPECT_EQ(nearest_match("dr", words), std::nullopt);
  EXPECT_EQ(nearest_match("optimizer", words), std::nullopt);
  EXPECT_EQ(nearest_match("", words), std::nullopt);
  EXPECT_EQ(nearest_match(std::string(100000, 'x'), words), std::nullopt);
  EXPECT_EQ(did_you_mean("tensr", words), "; did you mean 'tensor'?");
  EXPECT_EQ(did_you_mean("optimizer", words), "");
}

TEST(Shown, KeepsMessagesShortAndPrintable) {
  EXPECT_EQ(shown("plain text"), "plain text");
  EXPECT_EQ(shown("a\n\x1b[31mb"), "a\\x0a\\x1b[31mb");
  EXPECT_EQ(shown(std::string(100, 'x')), std::string(60, 'x') + "...");
}

}  // namespace
}  // namespace red::config
