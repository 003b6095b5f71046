#include "config/option_lookup.hpp"

#include <algorithm>

#include "config/nearest_match.hpp"

namespace red::config {
namespace {

/// "tokens" of "data.source.wiki.tokens"; "" when there is no key.
std::string_view source_key(std::string_view name) {
  const std::size_t length = kSourcePrefix.size() + source_name(name).size();
  return length < name.size() ? name.substr(length + 1) : std::string_view();
}

/// The option that is called `key`, here or in other projects.
template <class Table>
const typename Table::value_type* by_any_name(const Table& table, std::string_view section,
                                              std::string_view key) {
  for (const auto& option : table) {
    const auto& names = option.also_called;
    if (!section.empty() && option.section != section) continue;
    if (option.key == key || std::find(names.begin(), names.end(), key) != names.end()) return &option;
  }
  return nullptr;
}

std::string question(std::string_view name) {
  return fmt::format("; did you mean '{}'?", name);
}

std::string source_hint(std::string_view source, std::string_view key) {
  const std::string prefix = std::string(kSourcePrefix) + std::string(source) + ".";
  std::vector<std::string> keys;
  for (const SourceOption& option : source_options()) keys.push_back(option.key);
  if (const SourceOption* known = by_any_name(source_options(), {}, key))
    return question(prefix + known->key);
  if (const auto near = nearest_match(key, keys)) return question(prefix + *near);
  return fmt::format("; a source has {}", joined(keys));
}

std::string run_hint(std::string_view name) {
  const std::size_t dot = name.rfind('.');
  const std::string_view section = dot == std::string_view::npos ? std::string_view() : name.substr(0, dot);
  const std::string_view key = dot == std::string_view::npos ? name : name.substr(dot + 1);
  std::vector<std::string> names, keys;
  for (const RunOption& option : run_options()) {
    names.push_back(option.name());
    if (option.section == section) keys.push_back(option.key);
  }
  if (!keys.empty()) {
    if (const RunOption* known = by_any_name(run_options(), section, key)) return question(known->name());
    if (const auto near = nearest_match(key, keys)) return question(std::string(section) + "." + *near);
  }
  if (const RunOption* known = by_any_name(run_options(), {}, key)) return question(known->name());
  if (const auto near = nearest_match(name, names)) return question(*near);
  if (!keys.empty()) return fmt::format("; [{}] has {}", section, joined(keys));
  return fmt::format("; sections are {}", joined(section_names()));
}

}  // namespace

const RunOption* find_run_option(std::string_view name) {
  const auto& table = run_options();
  const auto it = std::find_if(table.begin(), table.end(), [&](const auto& o) { return o.name() == name; });
  return it == table.end() ? nullptr : &*it;
}

const SourceOption* find_source_option(std::string_view name) {
  if (source_name(name).empty()) return nullptr;
  const auto& table = source_options();
  const std::string_view key = source_key(name);
  const auto it = std::find_if(table.begin(), table.end(), [&](const auto& o) { return o.key == key; });
  return it == table.end() ? nullptr : &*it;
}

bool is_key(std::string_view name) {
  return find_run_option(name) != nullptr || find_source_option(name) != nullptr;
}

std::string unknown_key(std::string_view name) {
  const std::string_view source = source_name(name);
  return fmt::format("unknown key '{}'{}", shown(name),
                     source.empty() ? run_hint(name) : source_hint(source, source_key(name)));
}

std::optional<std::string> key_without_section(std::string_view key) {
  const RunOption* option = by_any_name(run_options(), {}, key);
  return option == nullptr ? std::nullopt : std::optional(option->name());
}

std::vector<std::string> section_names() {
  std::vector<std::string> names;
  for (const SectionInfo& info : sections()) names.push_back(info.name);
  return names;
}

std::string joined(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : ", ") + word;
  return text;
}

}  // namespace red::config
