#include "config/nearest_match.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

namespace red::config {
namespace {

/// One letter as the comparison sees it.
char folded(char c) {
  if (c >= 'A' && c <= 'Z') return static_cast<char>(c - 'A' + 'a');
  return c == '-' ? '_' : c;
}

}  // namespace

std::size_t edit_distance(std::string_view a, std::string_view b) {
  // Three rows of the table (|a| + 1, |b| + 1): row i - 2 is needed for swapped neighbours.
  std::vector<std::size_t> before(b.size() + 1), above(b.size() + 1), row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    before.swap(above);
    above.swap(row);
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const bool equal = folded(a[i - 1]) == folded(b[j - 1]);
      row[j] = std::min({above[j] + 1, row[j - 1] + 1, above[j - 1] + (equal ? 0 : 1)});
      if (i > 1 && j > 1 && folded(a[i - 1]) == folded(b[j - 2]) && folded(a[i - 2]) == folded(b[j - 1]))
        row[j] = std::min(row[j], before[j - 2] + 1);
    }
  }
  return row[b.size()];
}

std::optional<std::string> nearest_match(std::string_view word, std::span<const std::string> candidates) {
  // Messages about absurdly long words need no suggestion, and the table would be large.
  if (word.empty() || word.size() > 256) return std::nullopt;
  const std::string* best = nullptr;
  const std::size_t most_edits = word.size() < 5 ? 1 : std::max<std::size_t>(2, word.size() / 3);
  std::size_t best_distance = most_edits + 1;
  for (const std::string& candidate : candidates) {
    const std::size_t distance = edit_distance(word, candidate);
    if (distance < best_distance && distance < std::max(word.size(), candidate.size())) {
      best = &candidate;
      best_distance = distance;
    }
  }
  if (best == nullptr) return std::nullopt;
  return *best;
}

std::string did_you_mean(std::string_view word, std::span<const std::string> candidates) {
  const std::optional<std::string> match = nearest_match(word, candidates);
  return match ? fmt::format("; did you mean '{}'?", *match) : std::string();
}

std::string shown(std::string_view text) {
  constexpr std::size_t limit = 60;
  std::string result;
  for (const char c : text.substr(0, limit)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x20 && byte < 0x7f) {
      result.push_back(c);
    } else {
      result += fmt::format("\\x{:02x}", byte);
    }
  }
  if (text.size() > limit) result += "...";
  return result;
}

}  // namespace red::config
