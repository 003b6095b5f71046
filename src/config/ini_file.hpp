// Reads INI files into (key, value, file, line), includes first. Boost.Program_options gives no lines, cuts
// values at '#' and knows no includes, so this scan does what it cannot; storing by precedence is left to it
// (parse.cpp).
//
//   include = ../models/red_150m.ini   at the top, before any section; repeatable; relative to this file
//   [section]
//   key = value                        # a comment: '#' at the start of a line or after white space
//   key = "value with # or spaces "    quotes keep everything; \" and \\ inside
#pragma once

#include <cstddef>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace red::config {

/// Where a key was written.
struct Place {
  std::string file;  ///< as the user may open it; empty: the command line
  int line = 0;      ///< from 1

  std::string to_string() const;  ///< "file:line" or "command line"
  bool operator==(const Place&) const = default;
};

struct IniEntry {
  std::string name;  ///< "section.key"
  std::string value;
  Place place;
};

struct IniSection {
  std::string name;
  Place place;
};

/// One file's own lines, without those of its includes.
struct IniFile {
  std::vector<IniSection> sections;  ///< in order, as opened
  std::vector<IniEntry> entries;     ///< in order; no name twice
};

inline constexpr std::size_t kMaxIniBytes = std::size_t{1} << 20;
inline constexpr std::size_t kMaxIniLineBytes = 4096;
inline constexpr std::size_t kMaxIncludeDepth = 16;
inline constexpr std::size_t kMaxIniFiles = 256;  ///< a file that is included twice counts twice

/// The file with everything it includes, in order of rising precedence (itself last). Throws ConfigError with
/// file:line when a file is missing, no text, too long, malformed, has a key twice or includes itself.
std::vector<IniFile> read_ini(const std::filesystem::path& file);

/// The same for a text that is in memory; `name` stands for the file in messages. Includes are refused.
IniFile scan_ini(std::string_view text, const std::string& name);

/// `value` as an INI file must spell it to get it back: quoted where needed.
std::string ini_quoted(std::string_view value);

}  // namespace red::config
