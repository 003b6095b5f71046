// The one table of all configuration keys. Parsing, help, the printed effective configuration and
// docs/configuration.md all come from it; a key that is not here does not exist.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "config/option.hpp"
#include "config/run_config.hpp"

namespace red::config {

using RunOption = Option<RunConfig>;
using SourceOption = Option<data::SourceConfig>;

/// All keys with a fixed name, by section in the order of the documentation.
const std::vector<RunOption>& run_options();

/// Those of [train] and of [data]: parts of run_options().
void add_train_options(std::vector<RunOption>& table);
void add_data_options(std::vector<RunOption>& table);

/// The keys of a [data.source.NAME] section; their section is "data.source.NAME".
const std::vector<SourceOption>& source_options();

/// Sections in order, with one sentence each: {"model", "What the model is."}.
struct SectionInfo {
  std::string name;
  std::string help;
};
const std::vector<SectionInfo>& sections();

inline constexpr std::string_view kSourcePrefix = "data.source.";

/// "wiki" of "data.source.wiki" or "data.source.wiki.tokens"; "" when the text is neither.
std::string_view source_name(std::string_view section_or_key);

}  // namespace red::config
