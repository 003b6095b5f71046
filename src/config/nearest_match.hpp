// The name that a mistyped one most likely meant, for every message about an unknown key, section, command,
// option or file.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace red::config {

/// Fewest insertions, deletions, replacements and swaps of neighbours that turn one word into the other;
/// upper and lower case count as equal, and so do '-' and '_'.
std::size_t edit_distance(std::string_view a, std::string_view b);

/// The candidate with the smallest edit distance (the first of several), or nothing when none is close: more
/// than one edit in a word below five letters, or more than two and a third of a longer one, would be a
/// guess.
std::optional<std::string> nearest_match(std::string_view word, std::span<const std::string> candidates);

/// "; did you mean 'micro_batch'?", or "" when no candidate is close: to be appended to a message.
std::string did_you_mean(std::string_view word, std::span<const std::string> candidates);

/// Text as a message may show it: at most 60 characters, bytes that are not printable ASCII as \xNN.
std::string shown(std::string_view text);

}  // namespace red::config
