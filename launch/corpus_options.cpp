#include "launch/corpus_options.hpp"

#include "base/error.hpp"
#include "config/nearest_match.hpp"

namespace red::launch {
namespace {

/// The place of a value in a list of allowed ones.
std::size_t choice(const config::CommandLine& line, const std::string& option,
                   const std::vector<std::string>& values) {
  const std::string value = line.get(option, values.front());
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (values[i] == value) return i;
  }
  throw ConfigError("command line: --{} {} is none of {}{}", option, config::shown(value),
                    fmt::join(values, ", "), config::did_you_mean(value, values));
}

}  // namespace

std::vector<config::CommandOption> corpus_command_options() {
  return {{"format", "FORMAT",
           "auto (by name: .jsonl, .json, .ndjson, all else text), jsonl or text (default auto)", false},
          {"field", "NAME", "field of each JSON object that holds the text (default text)", false},
          {"split", "WHERE",
           "where text files are cut into documents: file (nowhere), blank-lines, separator (default file)",
           false},
          {"separator", "LINE", "the line that separates documents, with --split separator", false},
          {"max-bad-lines", "N", "malformed JSON lines that are skipped before it is an error (default 0)",
           false}};
}

data::CorpusOptions corpus_options(const config::CommandLine& line) {
  data::CorpusOptions options;
  for (const std::string& input : line.positional()) options.inputs.emplace_back(input);
  options.format =
      static_cast<data::CorpusOptions::Format>(choice(line, "format", {"auto", "jsonl", "text"}));
  options.split =
      static_cast<data::CorpusOptions::Split>(choice(line, "split", {"file", "blank-lines", "separator"}));
  options.field = line.get("field", "text");
  options.separator = line.get("separator");
  if (options.split == data::CorpusOptions::Split::separator && options.separator.empty()) {
    throw ConfigError("command line: --split separator needs --separator LINE");
  }
  return options;
}

}  // namespace red::launch
