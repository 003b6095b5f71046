#include "config/option.hpp"

#include <algorithm>
#include <array>

namespace red::config::detail {

std::string parse_boolean(std::string_view text, bool& result) {
  constexpr std::array<std::string_view, 4> yes = {"yes", "true", "on", "1"};
  constexpr std::array<std::string_view, 4> no = {"no", "false", "off", "0"};
  if (std::find(yes.begin(), yes.end(), text) != yes.end()) {
    result = true;
  } else if (std::find(no.begin(), no.end(), text) != no.end()) {
    result = false;
  } else {
    return "is neither yes nor no (also allowed: true, false, on, off, 1, 0)";
  }
  return {};
}

std::string parse_counts(std::string_view text, std::vector<int64_t>& result) {
  std::vector<int64_t> counts;
  while (!text.empty()) {
    const std::size_t comma = std::min(text.find(','), text.size());
    int64_t count = 0;
    const std::string wrong = parse_number<int64_t>(text.substr(0, comma), {.low = 1}, count);
    if (!wrong.empty()) return fmt::format("has a part '{}' that {}", text.substr(0, comma), wrong);
    counts.push_back(count);
    if (comma + 1 == text.size()) return "ends with a comma";
    text.remove_prefix(std::min(comma + 1, text.size()));
  }
  result = std::move(counts);
  return {};
}

std::string name_complaint(std::string_view text) {
  const auto allowed = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '_' || c == '-';
  };
  if (text.empty()) return "is empty";
  if (text.size() > 64) return "is longer than 64 characters";
  if (!std::all_of(text.begin(), text.end(), allowed))
    return "holds other characters than letters, digits, '.', '_' and '-'";
  return {};
}

}  // namespace red::config::detail
