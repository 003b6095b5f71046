#include "config/reference.hpp"

#include <fmt/format.h>

#include "config/option_table.hpp"

namespace red::config {
namespace {

/// Breaks text at blanks into lines of at most `width`, each behind `indent`.
std::string wrapped(const std::string& text, const std::string& indent, std::size_t width) {
  std::string result, line;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find(' ', begin), text.size());
    const std::string word = text.substr(begin, end - begin);
    if (!line.empty() && line.size() + 1 + word.size() > width) {
      result += indent + line + "\n";
      line.clear();
    }
    line += (line.empty() ? "" : " ") + word;
    begin = end + 1;
  }
  return result + indent + line + "\n";
}

/// "must be given", "must be given for train and bench", "0.01", "empty".
std::string default_of(const OptionInfo& option) {
  if (option.needed_for == 0) return option.default_text.empty() ? "empty" : option.default_text;
  if (option.needed_for == (kModelUse | kTrainUse | kBenchUse)) return "must be given";
  return option.needed_for == kTrainUse ? "must be given to train" : "must be given to train and to bench";
}

/// "integer >= 1, in tokens"
std::string kind_of(const OptionInfo& option) {
  std::string text = option.type == "choice" ? option.range : option.type;
  if (option.type != "choice" && !option.range.empty())
    text += (option.type == "name" ? ": " : " ") + option.range;
  if (!option.unit.empty()) text += ", in " + option.unit;
  return text;
}

/// What stands for a key's value in help: "N", "PATH", "red|dec".
std::string value_word(const OptionInfo& option) {
  if (option.type == "integer") return "N";
  if (option.type == "number") return "X";
  if (option.type == "list") return "N,N,...";
  if (option.type == "name") return "NAME";
  if (option.type == "path") return "PATH";
  if (option.type == "yes or no") return "yes|no";
  std::string choices;
  for (const char c : option.range) {
    if (c != ' ') choices.push_back(c);
  }
  return choices;
}

std::string help_of_key(const OptionInfo& option) {
  std::string facts = option.type == "choice" || option.type == "yes or no" ? "" : kind_of(option) + "; ";
  facts += option.needed_for == 0 ? "default " + default_of(option) : default_of(option);
  return fmt::format("  --{}={}  ({})\n", option.name(), value_word(option), facts) +
         wrapped(option.help, "      ", 100);
}

/// '|' would end a table's cell.
std::string cell(const std::string& text) {
  std::string result;
  for (const char c : text) {
    if (c == '|') result.push_back('\\');
    result.push_back(c);
  }
  return result;
}

std::string markdown_row(const OptionInfo& option) {
  return fmt::format("| `{}` | {} | {} | {} |\n", option.key, cell(kind_of(option)),
                     option.needed_for != 0 || option.default_text.empty()
                         ? default_of(option)
                         : fmt::format("`{}`", default_of(option)),
                     cell(option.help));
}

/// Calls visit(OptionInfo) for each key of a section, the sources' included.
template <class Visit>
void for_each_key(const std::string& section, Visit visit) {
  for (const RunOption& option : run_options())
    if (option.section == section) visit(option);
  for (const SourceOption& option : source_options())
    if (option.section == section) visit(option);
}

}  // namespace

std::string help_of_keys() {
  std::string text = "keys of the configuration, as --section.key=value or in an INI file under [section]:\n";
  for (const SectionInfo& section : sections()) {
    text += fmt::format("\n[{}] {}\n", section.name, section.help);
    for_each_key(section.name, [&](const OptionInfo& option) { text += help_of_key(option); });
  }
  return text;
}

std::string configuration_markdown() {
  std::string text =
      R"(# Configuration

<!-- Made by `redllm config docs > docs/configuration.md` from the option tables (src/config/option_table*.cpp);
a test fails when the two differ. -->

A run is told everything by INI files and the command line:

```
redllm config show --config configs/models/red_150m.ini --config configs/pretrain.ini --train.micro_batch=4
```

- `--config FILE` may be repeated; a later file wins, key by key. `--section.key=value` on the command line wins
  over every file. `redllm config show` prints what comes out, each key with the place that set it; its output is
  itself a configuration file. A run saves the same text beside its metrics.
- A file may begin with `include = OTHER.ini`, repeatedly and before any section; the path is relative to the file
  that names it. The including file wins over what it includes. Files that include each other are refused.
- `#` begins a comment at the start of a line or after white space; `;` at the start of a line alone. A value with
  ` #`, or blanks at its ends, stands in double quotes; inside them `\"` is a quote and `\\` a backslash.
- Other paths (token files, tokenizer, run folder) are relative to the working directory.
- A corpus is a section `[data.source.NAME]`. A later file that has a section of the same NAME replaces the corpus
  whole; on the command line `--data.source.NAME.key=value` changes one key of it.
- An unknown key or section, a value of the wrong type or out of range, a key that stands twice in one file, and
  keys that contradict each other end the program with exit code 2 before anything is allocated. The message names
  file and line, what is wrong, and the nearest match or a value that works.

Numbers are written plainly (`2048`, `0.01`, `1e-4`); yes-or-no keys take `yes`, `no`, `true`, `false`, `on`, `off`,
`1` and `0`.
)";
  for (const SectionInfo& section : sections()) {
    text += fmt::format("\n## [{}]\n\n{}\n\n| key | values | default | meaning |\n|---|---|---|---|\n",
                        section.name, section.help);
    for_each_key(section.name, [&](const OptionInfo& option) { text += markdown_row(option); });
  }
  return text;
}

}  // namespace red::config
