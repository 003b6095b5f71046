// Text that a model can learn something of in twenty steps: sentences of one form with words of unequal
// frequency; always the same.
#pragma once

#include <array>
#include <string>

#include "base/philox.hpp"

namespace red::test {

inline std::string sentence(uint64_t number) {
  constexpr std::array nouns = {"river",  "mountain", "teacher", "window",
                                "garden", "stone",    "letter",  "café"};
  constexpr std::array verbs = {"follows", "remembers", "crosses", "finds", "leaves"};
  constexpr std::array adjectives = {"old", "quiet", "green", "heavy", "distant", "naïve"};
  const PhiloxBlock dice = philox(11, number);
  // The product of two shares prefers the first words.
  const auto pick = [](const auto& words, uint32_t die) {
    const double share = static_cast<double>(die >> 16) * static_cast<double>(die & 0xffff) * 0x1.0p-32;
    return std::string(words[static_cast<std::size_t>(share * static_cast<double>(words.size()))]);
  };
  return "The " + pick(adjectives, dice[0]) + " " + pick(nouns, dice[1]) + " " + pick(verbs, dice[2]) +
         " the " + pick(nouns, dice[3]) + ". ";
}

/// Document `number` of a corpus: twenty sentences.
inline std::string document(uint64_t number) {
  std::string text;
  for (uint64_t i = 0; i < 20; ++i) text += sentence(20 * number + i);
  return text;
}

/// Documents first ... first + count - 1 as JSON Lines.
inline std::string json_lines(uint64_t first, uint64_t count) {
  std::string lines;
  for (uint64_t i = first; i < first + count; ++i) lines += "{\"text\": \"" + document(i) + "\"}\n";
  return lines;
}

}  // namespace red::test
