#include "config/ini_file.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <map>

#include "base/error.hpp"
#include "config/nearest_match.hpp"

namespace red::config {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kBlank = " \t";

std::string_view trimmed(std::string_view text) {
  const std::size_t first = text.find_first_not_of(kBlank);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kBlank) - first + 1);
}

/// Text before a comment: '#' counts at the start or after white space, so that "/data/c#/x" stays whole.
std::string_view without_comment(std::string_view text) {
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '#' && (i == 0 || kBlank.find(text[i - 1]) != std::string_view::npos))
      return text.substr(0, i);
  }
  return text;
}

/// The inside of a quoted value; `text` begins with the quote.
std::string unquoted(std::string_view text, const Place& place) {
  std::string value;
  std::size_t i = 1;
  for (; i < text.size() && text[i] != '"'; ++i) {
    if (text[i] == '\\') {
      if (i + 1 == text.size() || (text[i + 1] != '"' && text[i + 1] != '\\'))
        throw ConfigError(
            "{}: in quotes a backslash stands before \\ or \" alone: write \\\\ for one backslash",
            place.to_string());
      ++i;
    }
    value.push_back(text[i]);
  }
  if (i == text.size()) throw ConfigError("{}: the value has no closing quote (\")", place.to_string());
  if (const std::string_view rest = trimmed(without_comment(text.substr(i + 1))); !rest.empty())
    throw ConfigError("{}: '{}' after the closing quote; write \\\" for a quote inside the value",
                      place.to_string(), shown(rest));
  return value;
}

/// Letters, digits, '_', '-' and, between them, dots.
bool is_name(std::string_view text) {
  const auto allowed = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '-' || c == '.';
  };
  return !text.empty() && std::all_of(text.begin(), text.end(), allowed) && text.front() != '.' &&
         text.back() != '.' && text.find("..") == std::string_view::npos;
}

struct Include {
  fs::path path;
  Place place;
};

/// One file's lines, its includes not yet followed.
struct Scanned {
  IniFile file;
  std::vector<Include> includes;
};

/// Goes through the lines of one text.
class Scanner {
 public:
  explicit Scanner(std::string name) : name_(std::move(name)) {}

  Scanned scan(std::string_view text) {
    constexpr std::string_view byte_order_mark = "\xef\xbb\xbf";
    if (text.starts_with(byte_order_mark)) text.remove_prefix(byte_order_mark.size());
    // All of it first: what is no text at all should not be called a malformed key.
    for_each_line(text, [](const Place& place, std::string_view line) { check_text(place, line); });
    for_each_line(text, [this](const Place& place, std::string_view line) { take(place, line); });
    return std::move(result_);
  }

 private:
  template <class Visit>
  void for_each_line(std::string_view text, Visit visit) const {
    for (int line = 1; !text.empty(); ++line) {
      const std::size_t end = std::min(text.find('\n'), text.size());
      std::string_view content = text.substr(0, end);
      text.remove_prefix(std::min(end + 1, text.size()));
      if (content.ends_with('\r')) content.remove_suffix(1);
      visit(Place{name_, line}, content);
    }
  }

  void take(const Place& place, std::string_view line) {
    line = trimmed(line);
    if (line.empty() || line.front() == '#' || line.front() == ';') return;
    if (line.front() == '[') {
      open_section(place, trimmed(without_comment(line)));
    } else {
      take_key(place, line);
    }
  }

  static void check_text(const Place& place, std::string_view line) {
    if (line.size() > kMaxIniLineBytes)
      throw ConfigError("{}: the line has {} bytes, more than {}; is this a configuration file?",
                        place.to_string(), line.size(), kMaxIniLineBytes);
    for (const char c : line) {
      const auto byte = static_cast<unsigned char>(c);
      if ((byte < 0x20 && c != '\t') || byte == 0x7f)
        throw ConfigError("{}: byte 0x{:02x} does not belong into text; is this a configuration file?",
                          place.to_string(), byte);
    }
  }

  void open_section(const Place& place, std::string_view line) {
    if (line.back() != ']')
      throw ConfigError("{}: '{}' opens a section but does not end with ']'; write [section]",
                        place.to_string(), shown(line));
    const std::string_view section = trimmed(line.substr(1, line.size() - 2));
    if (!is_name(section))
      throw ConfigError("{}: '{}' is no section name: letters, digits, '_', '-' and '.' alone",
                        place.to_string(), shown(section));
    section_ = section;
    result_.file.sections.push_back({section_, place});
  }

  void take_key(const Place& place, std::string_view line) {
    const std::size_t equals = line.find('=');
    const std::string_view key = trimmed(line.substr(0, equals));
    if (equals == std::string_view::npos || !is_name(key))
      throw ConfigError("{}: '{}' is neither 'key = value' nor '[section]' nor a comment (#)",
                        place.to_string(), shown(without_comment(line)));
    const std::string_view right = trimmed(line.substr(equals + 1));
    std::string value =
        right.starts_with('"') ? unquoted(right, place) : std::string(trimmed(without_comment(right)));
    if (key == "include" && section_.empty()) {
      if (value.empty()) throw ConfigError("{}: include names no file", place.to_string());
      result_.includes.push_back({value, place});
      return;
    }
    std::string name = section_.empty() ? std::string(key) : section_ + "." + std::string(key);
    const auto [first, is_new] = lines_.emplace(name, place.line);
    if (!is_new)
      throw ConfigError("{}: {} is already set in line {} of this file; keep one of the two",
                        place.to_string(), name, first->second);
    result_.file.entries.push_back({std::move(name), std::move(value), place});
  }

  std::string name_;
  std::string section_;
  std::map<std::string, int> lines_;  // of each name
  Scanned result_;
};

/// "; did you mean 'red_150m.ini'?" when the file's folder holds one with nearly this name.
std::string near_file(const fs::path& file) {
  std::vector<std::string> names;
  const fs::path folder = file.has_parent_path() ? file.parent_path() : fs::path(".");
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error))
    names.push_back(it->path().filename().string());
  std::sort(names.begin(), names.end());
  return did_you_mean(file.filename().string(), names);
}

/// `named_by`: "command line: --config F" or "a.ini:1: include = F".
std::string read_text(const fs::path& file, const std::string& named_by) {
  std::error_code error;
  const fs::file_status status = fs::status(file, error);
  if (status.type() == fs::file_type::not_found)
    throw ConfigError("{}: there is no such file{}", named_by, near_file(file));
  if (error) throw ConfigError("{}: {}", named_by, error.message());
  if (status.type() == fs::file_type::directory)
    throw ConfigError("{}: this is a folder; name a file in it", named_by);
  if (status.type() != fs::file_type::regular)
    throw ConfigError("{}: this is no regular file; every rank has to read it", named_by);
  std::ifstream stream(file, std::ios::binary);
  if (!stream) throw ConfigError("{}: cannot be opened: {}", named_by, std::strerror(errno));
  std::string text(kMaxIniBytes + 1, '\0');
  stream.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (stream.bad()) throw ConfigError("{}: cannot be read: {}", named_by, std::strerror(errno));
  text.resize(static_cast<std::size_t>(stream.gcount()));
  if (text.size() > kMaxIniBytes)
    throw ConfigError("{}: larger than {} MiB; is this a configuration file?", named_by, kMaxIniBytes >> 20);
  return text;
}

/// A file with its includes; `open` are the files on the way here, outermost first.
void read_nested(const fs::path& file, const std::string& named_by, std::vector<fs::path>& open,
                 std::vector<IniFile>& result) {
  const std::string text = read_text(file, named_by);
  const fs::path canonical = fs::weakly_canonical(file);
  if (std::find(open.begin(), open.end(), canonical) != open.end()) {
    std::string circle;
    for (const fs::path& path : open) circle += path.filename().string() + " -> ";
    throw ConfigError("{}: files include each other in a circle: {}{}; take one include out", named_by,
                      circle, canonical.filename().string());
  }
  if (open.size() >= kMaxIncludeDepth)
    throw ConfigError("{}: includes are nested deeper than {} files", named_by, kMaxIncludeDepth);
  if (result.size() >= kMaxIniFiles)
    throw ConfigError("{}: the includes come to more than {} files", named_by, kMaxIniFiles);
  Scanned scanned = Scanner(file.string()).scan(text);
  open.push_back(canonical);
  for (const Include& include : scanned.includes) {
    const fs::path path = (file.parent_path() / include.path).lexically_normal();
    read_nested(path,
                fmt::format("{}: include = {}", include.place.to_string(), shown(include.path.string())),
                open, result);
  }
  open.pop_back();
  result.push_back(std::move(scanned.file));
}

}  // namespace

std::string Place::to_string() const {
  return file.empty() ? "command line" : fmt::format("{}:{}", file, line);
}

std::vector<IniFile> read_ini(const fs::path& file) {
  std::vector<IniFile> result;
  std::vector<fs::path> open;
  read_nested(file, fmt::format("command line: --config {}", shown(file.string())), open, result);
  return result;
}

IniFile scan_ini(std::string_view text, const std::string& name) {
  Scanned scanned = Scanner(name).scan(text);
  if (!scanned.includes.empty())
    throw ConfigError("{}: a configuration that is stored inside another file cannot include files",
                      scanned.includes.front().place.to_string());
  return std::move(scanned.file);
}

std::string ini_quoted(std::string_view value) {
  const bool plain = value == trimmed(value) && value == without_comment(value) && !value.starts_with('"');
  if (plain) return std::string(value);
  std::string quoted = "\"";
  for (const char c : value) {
    if (c == '"' || c == '\\') quoted.push_back('\\');
    quoted.push_back(c);
  }
  return quoted + "\"";
}

}  // namespace red::config
