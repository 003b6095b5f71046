// Finding keys of the option table by name, and what to say about names that are not in it.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "config/option_table.hpp"

namespace red::config {

const RunOption* find_run_option(std::string_view name);        ///< "model.d_model"; nullptr: none
const SourceOption* find_source_option(std::string_view name);  ///< "data.source.wiki.tokens"; nullptr: none
bool is_key(std::string_view name);

/// "unknown key 'train.micro_bach'; did you mean 'train.micro_batch'?" Looks for slips of the keyboard, for
/// the same key in other sections and for other projects' names.
std::string unknown_key(std::string_view name);

/// "schedule.peak" for "peak" or "lr".
std::optional<std::string> key_without_section(std::string_view key);

std::vector<std::string> section_names();
std::string joined(const std::vector<std::string>& words);  ///< "a, b, c"

}  // namespace red::config
