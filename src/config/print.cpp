#include "config/print.hpp"

#include <fmt/format.h>

#include "config/option_table.hpp"

namespace red::config {
namespace {

/// "key = value   # origin"; comments of short lines stand in one column.
template <class Config>
std::string line(const Option<Config>& option, const Config& config, const std::string& origin) {
  const std::string value = option.get(config);
  const bool not_given = option.needed_for != 0 && value == option.default_text;
  if (not_given) return fmt::format("# {} is not given\n", option.key);
  return fmt::format("{:<40} # {}\n", option.key + " = " + ini_quoted(value), origin);
}

}  // namespace

std::string print_effective(const Loaded& loaded) {
  std::string text = "# Effective configuration: every key, with the place that set it.\n";
  std::string section;
  for (const RunOption& option : run_options()) {
    if (option.section != section) text += fmt::format("\n[{}]\n", option.section);
    section = option.section;
    text += line(option, loaded.config, loaded.origin(option.name()));
  }
  for (const data::SourceConfig& source : loaded.config.data.sources) {
    const std::string name = std::string(kSourcePrefix) + source.name;
    text += fmt::format("\n[{}]\n", name);
    for (const SourceOption& option : source_options())
      text += line(option, source, loaded.origin(name + "." + option.key));
  }
  return text;
}

}  // namespace red::config
