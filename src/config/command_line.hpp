// Command lines of the program's commands: options of the command's own, and, for commands that work on a
// configuration, --config FILE and --section.key=value. Mistakes are ConfigErrors with the nearest match.
#pragma once

#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "config/parse.hpp"

namespace red::config {

/// An option of one command: a switch (--json) or one with a value (--prompt TEXT).
struct CommandOption {
  std::string name;      ///< without the dashes
  std::string argument;  ///< what help calls the value: "FILE", "N"; empty: a switch
  std::string help;      ///< meaning, unit and default
  bool repeatable = false;
};

/// What a command takes; parsing and --help come from it.
struct CommandSpec {
  std::string name;        ///< "data build"
  std::string usage = {};  ///< what follows the name: "--out PREFIX FILE..."
  std::string summary;     ///< what the command does, in sentences
  std::vector<CommandOption> options = {};
  bool takes_config = false;  ///< --config and --section.key=value
  int min_positional = 0;     ///< words without dashes
  int max_positional = 0;
  std::string example = {};  ///< whole command lines
};

class CommandLine {
 public:
  /// Throws ConfigError for whatever the spec does not allow. With --help among them nothing else is checked.
  CommandLine(const CommandSpec& spec, std::span<const std::string> args);

  bool help() const { return help_; }
  bool has(const std::string& name) const { return values_.contains(name); }
  std::string get(const std::string& name, const std::string& fallback = {}) const;  ///< the last one given
  std::vector<std::string> get_all(const std::string& name) const;  ///< of a repeatable option
  /// A number in [low, high]; throws ConfigError otherwise.
  int64_t get_integer(const std::string& name, int64_t fallback, int64_t low, int64_t high) const;
  double get_number(const std::string& name, double fallback, double low, double high) const;
  const std::vector<std::string>& positional() const { return positional_; }
  /// --config files and overrides, ready for load().
  const Sources& sources() const { return sources_; }

 private:
  std::string command_;
  bool help_ = false;
  std::map<std::string, std::vector<std::string>> values_;
  std::vector<std::string> positional_;
  Sources sources_;
};

/// What --help prints.
std::string help_text(const CommandSpec& spec);

}  // namespace red::config
