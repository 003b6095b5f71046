// From files and command line to a RunConfig. Precedence, highest first: command line, then --config files
// from the last to the first; a file beats what it includes. All mistakes of names and values are reported at
// once, each with its place and a way out.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "config/ini_file.hpp"
#include "config/run_config.hpp"

namespace red::config {

/// What a configuration is made from.
struct Sources {
  /// A configuration that is kept elsewhere (a checkpoint's), below all files: text and a name for messages.
  std::optional<std::pair<std::string, std::string>> base;
  std::vector<std::filesystem::path> files;                    ///< --config, in order
  std::vector<std::pair<std::string, std::string>> overrides;  ///< --section.key=value, in order
};

/// A configuration, and for every key that was given the place that gave it.
struct Loaded {
  RunConfig config;
  std::map<std::string, Place, std::less<>> places;  ///< by "section.key"; absent: the default holds

  /// "file:line", "command line" or "default".
  std::string origin(std::string_view name) const;
};

/// Throws ConfigError. What keys mean together is checked by validate().
Loaded load(const Sources& sources);

}  // namespace red::config
