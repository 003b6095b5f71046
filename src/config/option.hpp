// One key of the configuration: what it is called, what it may hold, what it means, and how text gets into a
// RunConfig and out again. A Section turns fields into Options; option_table*.cpp list them all.
#pragma once

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <charconv>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <limits>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "data/sample_ranges.hpp"

namespace red::config {

/// What a configuration is read for: some keys have to be given for one use and not for another.
enum Use : unsigned {
  kModelUse = 1,  ///< anything that builds the model
  kTrainUse = 2,
  kBenchUse = 4,
};

/// Everything that help, documentation and messages say about a key.
struct OptionInfo {
  std::string section;               ///< "model"; "data.source.NAME" for the keys of a source
  std::string key;                   ///< "d_model"
  std::string type;                  ///< "integer", "number", "list", "yes or no", "choice", "name", "path"
  std::string range;                 ///< ">= 1", "red | dec"; empty: anything
  std::vector<std::string> choices;  ///< of a choice
  std::string unit;                  ///< "tokens"; empty: none
  std::string help;                  ///< one sentence
  std::string default_text;          ///< as an INI file would spell it
  unsigned needed_for = 0;           ///< Uses that cannot go without; its default then means "not given"
  std::vector<std::string> also_called;  ///< other projects' names for it, for suggestions

  std::string name() const { return section + "." + key; }
};

template <class Config>
struct Option : OptionInfo {
  /// Assigns; returns what is wrong with the text ("is not a whole number"), "" when nothing is.
  std::function<std::string(Config&, std::string_view)> set;
  std::function<std::string(const Config&)> get;  ///< as an INI file would spell it, unquoted

  Option& in(std::string_view text) {
    unit = text;
    return *this;
  }
  Option& needed(unsigned uses) {
    needed_for = uses;
    return *this;
  }
  Option& aka(const std::vector<std::string>& names) {
    also_called = names;
    return *this;
  }
};

/// Allowed numbers, ends included unless said.
template <class T>
struct Range {
  T low = std::numeric_limits<T>::lowest();
  T high = std::numeric_limits<T>::max();
  bool above_low = false;  ///< low itself is not allowed
  bool below_high = false;

  bool contains(T x) const { return (above_low ? x > low : x >= low) && (below_high ? x < high : x <= high); }
  std::string to_string() const {
    const bool has_low = std::is_unsigned_v<T> || low != std::numeric_limits<T>::lowest();
    const bool has_high = high != std::numeric_limits<T>::max();
    if (has_low && has_high)
      return fmt::format("{}{} to {}{}", above_low ? "above " : "", low, below_high ? "below " : "", high);
    if (has_low) return fmt::format("{} {}", above_low ? ">" : ">=", low);
    return has_high ? fmt::format("{} {}", below_high ? "<" : "<=", high) : "";
  }
};

namespace detail {

/// The whole text as a number; what is wrong otherwise.
template <class T>
std::string parse_number(std::string_view text, const Range<T>& range, T& result) {
  constexpr bool whole = std::is_integral_v<T>;
  const char* end = text.data() + text.size();
  T value{};
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  if (error == std::errc::result_out_of_range) return "is too large or too small for a number";
  if constexpr (whole && std::is_unsigned_v<T>) {
    if (text.starts_with('-')) return "must not be negative";
  }
  if (error != std::errc() || stop != end) return whole ? "is not a whole number" : "is not a number";
  if constexpr (!whole) {
    if (!std::isfinite(value)) return "is not a finite number";
  }
  if (!range.contains(value)) return fmt::format("is out of range: allowed is {}", range.to_string());
  result = value;
  return {};
}

std::string parse_boolean(std::string_view text, bool& result);
std::string parse_counts(std::string_view text, std::vector<int64_t>& result);
/// What is wrong with a text as a name that appears in files and reports.
std::string name_complaint(std::string_view text);

}  // namespace detail

/// Collects the options of one section. `field` maps a (const) Config& to a (const) reference to the field.
template <class Config>
class Section {
 public:
  Section(std::string name, std::vector<Option<Config>>& table) : name_(std::move(name)), table_(table) {}

  /// A whole or a floating-point number, by the field's type.
  template <class Field, class T = std::remove_reference_t<std::invoke_result_t<Field, Config&>>>
  Option<Config>& number(std::string_view key, Field field, std::type_identity_t<Range<T>> range,
                         std::string_view help) {
    Option<Config>& option = add(key, std::is_integral_v<T> ? "integer" : "number", help);
    option.range = range.to_string();
    option.set = [field, range](Config& config, std::string_view text) {
      return detail::parse_number<T>(text, range, field(config));
    };
    return readable(option, [field](const Config& config) { return fmt::format("{}", field(config)); });
  }

  /// Whole numbers of at least 1, separated by commas; empty: none. Field: a vector of int64_t.
  template <class Field>
  Option<Config>& counts(std::string_view key, Field field, std::string_view help) {
    Option<Config>& option = add(key, "list", help);
    option.range = "N,N,... each >= 1";
    option.set = [field](Config& config, std::string_view text) {
      return detail::parse_counts(text, field(config));
    };
    return readable(
        option, [field](const Config& config) { return fmt::format("{}", fmt::join(field(config), ",")); });
  }

  /// Samples by global index, such as 19200-19215,19300; empty: none. Field: data::SampleRanges.
  template <class Field>
  Option<Config>& samples(std::string_view key, Field field, std::string_view help) {
    Option<Config>& option = add(key, "list", help);
    option.range = "FIRST-LAST,N,...";
    option.set = [field](Config& config, std::string_view text) {
      return data::parse_sample_ranges(text, field(config));
    };
    return readable(option, [field](const Config& config) { return field(config).to_string(); });
  }

  template <class Field>
  Option<Config>& boolean(std::string_view key, Field field, std::string_view help) {
    Option<Config>& option = add(key, "yes or no", help);
    option.set = [field](Config& config, std::string_view text) {
      return detail::parse_boolean(text, field(config));
    };
    return readable(option, [field](const Config& config) { return field(config) ? "yes" : "no"; });
  }

  /// An enum, or a string with a fixed set of values; each with its spelling.
  template <class Field, class T = std::remove_reference_t<std::invoke_result_t<Field, Config&>>>
  Option<Config>& choice(std::string_view key, Field field,
                         std::type_identity_t<std::vector<std::pair<T, std::string>>> values,
                         std::string_view help) {
    Option<Config>& option = add(key, "choice", help);
    for (const auto& [value, spelling] : values) {
      option.range += (option.range.empty() ? "" : " | ") + spelling;
      option.choices.push_back(spelling);
    }
    option.set = [field, values, range = option.range](Config& config, std::string_view text) {
      for (const auto& [value, spelling] : values) {
        if (spelling != text) continue;
        field(config) = value;
        return std::string();
      }
      return fmt::format("is none of {}", range);
    };
    return readable(option, [field, values](const Config& config) {
      for (const auto& [value, spelling] : values)
        if (value == field(config)) return spelling;
      return std::string();
    });
  }

  /// A short name: letters, digits, '.', '_', '-'.
  template <class Field>
  Option<Config>& name(std::string_view key, Field field, std::string_view help) {
    Option<Config>& option = add(key, "name", help);
    option.range = "letters, digits, '.', '_', '-'";
    option.set = [field](Config& config, std::string_view text) {
      std::string complaint = detail::name_complaint(text);
      if (complaint.empty()) field(config) = text;
      return complaint;
    };
    return readable(option, [field](const Config& config) { return field(config); });
  }

  /// A file, a folder or the prefix of files, relative to the working directory. Field: path or string.
  template <class Field>
  Option<Config>& path(std::string_view key, Field field, std::string_view help) {
    Option<Config>& option = add(key, "path", help);
    option.set = [field](Config& config, std::string_view text) {
      // The effective configuration is a file of lines.
      if (text.find_first_of("\n\r") != std::string_view::npos) return "holds a line break";
      field(config) = std::string(text);
      return "";
    };
    return readable(option,
                    [field](const Config& config) { return std::filesystem::path(field(config)).string(); });
  }

 private:
  Option<Config>& add(std::string_view key, std::string_view type, std::string_view help) {
    Option<Config>& option = table_.emplace_back();
    option.section = name_;
    option.key = key;
    option.type = type;
    option.help = help;
    return option;
  }
  Option<Config>& readable(Option<Config>& option, std::function<std::string(const Config&)> get) {
    option.get = std::move(get);
    option.default_text = option.get(Config{});
    return option;
  }

  std::string name_;
  std::vector<Option<Config>>& table_;
};

}  // namespace red::config
