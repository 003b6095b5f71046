#include "config/command_line.hpp"

#include <algorithm>
#include <boost/program_options.hpp>

#include "base/error.hpp"
#include "config/nearest_match.hpp"
#include "config/option_lookup.hpp"
#include "config/reference.hpp"

namespace red::config {
namespace {

namespace po = boost::program_options;

/// "--x=" becomes "--x" "", because program_options refuses an empty value behind '='.
std::vector<std::string> with_empty_values(std::span<const std::string> args) {
  std::vector<std::string> result;
  for (const std::string& arg : args) {
    if (arg.starts_with("--") && arg.size() > 3 && arg.find('=') == arg.size() - 1) {
      result.push_back(arg.substr(0, arg.size() - 1));
      result.emplace_back();
    } else {
      result.push_back(arg);
    }
  }
  return result;
}

/// "name" of "--name" or "--name=value".
std::string option_name(const std::string& arg) {
  return arg.starts_with("--") ? arg.substr(2, arg.find('=') - 2) : std::string();
}

void describe(const CommandSpec& spec, const std::vector<std::string>& args, po::options_description& table) {
  for (const CommandOption& option : spec.options) {
    if (option.argument.empty()) {
      table.add_options()(option.name.c_str(), "");
    } else {
      table.add_options()(option.name.c_str(), po::value<std::string>());
    }
  }
  if (!spec.takes_config) return;
  table.add_options()("config", po::value<std::string>());
  for (const RunOption& option : run_options())
    table.add_options()(option.name().c_str(), po::value<std::string>());
  // Sources have names of the user's own: those that occur are known.
  std::vector<std::string> known;
  for (const std::string& arg : args) {
    const std::string name = option_name(arg);
    if (find_source_option(name) == nullptr) continue;
    if (std::find(known.begin(), known.end(), name) != known.end()) continue;
    table.add_options()(name.c_str(), po::value<std::string>());
    known.push_back(name);
  }
}

[[noreturn]] void refuse_unknown(const CommandSpec& spec, const std::string& option) {
  const std::string name = option.substr(std::min(option.find_first_not_of('-'), option.size()));
  if (spec.takes_config && name.find('.') != std::string::npos)
    throw ConfigError("command line: {} (redllm {} --help lists all keys)", unknown_key(name), spec.name);
  std::vector<std::string> known = {"help"};
  for (const CommandOption& one : spec.options) known.push_back(one.name);
  if (spec.takes_config) known.emplace_back("config");
  std::optional<std::string> meant = nearest_match(name, known);
  if (!meant && spec.takes_config) meant = key_without_section(name);
  throw ConfigError("command line: unknown option '{}'{} (redllm {} --help lists all)", shown(option),
                    meant ? fmt::format("; did you mean '--{}'?", *meant) : "", spec.name);
}

std::vector<po::option> parsed(const CommandSpec& spec, const std::vector<std::string>& args) {
  po::options_description table;
  describe(spec, args, table);
  namespace style = po::command_line_style;
  try {
    return po::command_line_parser(args)
        .options(table)
        .style(style::allow_long | style::long_allow_adjacent | style::long_allow_next)
        .allow_unregistered()
        .run()
        .options;
  } catch (const po::error& error) {
    throw ConfigError("command line: {} (redllm {} --help tells more)", error.what(), spec.name);
  }
}

}  // namespace

CommandLine::CommandLine(const CommandSpec& spec, std::span<const std::string> args) : command_(spec.name) {
  const auto end = std::find(args.begin(), args.end(), "--");
  const auto is_help = [](const std::string& arg) { return arg == "--help" || arg == "-h"; };
  help_ = std::any_of(args.begin(), end, is_help);
  if (help_) return;
  const auto before = args.first(static_cast<std::size_t>(end - args.begin()));
  for (const po::option& option : parsed(spec, with_empty_values(before))) {
    const std::string value = option.value.empty() ? std::string() : option.value.front();
    const bool dashed = option.position_key >= 0 && value.size() > 1 && value.front() == '-';
    if (option.unregistered || dashed) refuse_unknown(spec, dashed ? value : "--" + option.string_key);
    if (option.position_key >= 0) {
      positional_.push_back(value);
    } else if (spec.takes_config && option.string_key == "config") {
      sources_.files.emplace_back(value);
    } else if (spec.takes_config && is_key(option.string_key)) {
      sources_.overrides.emplace_back(option.string_key, value);
    } else {
      values_[option.string_key].push_back(value);
    }
  }
  if (end != args.end()) positional_.insert(positional_.end(), end + 1, args.end());
  for (const CommandOption& option : spec.options) {
    if (!option.argument.empty() && !option.repeatable && get_all(option.name).size() > 1)
      throw ConfigError("command line: --{} is given twice; keep one of the two", option.name);
  }
  const auto count = static_cast<int>(positional_.size());
  if (count > spec.max_positional)
    throw ConfigError("command line: '{}' is one word too many; usage: redllm {} {}",
                      shown(positional_[static_cast<std::size_t>(spec.max_positional)]), spec.name,
                      spec.usage);
  if (count < spec.min_positional)
    throw ConfigError("command line: something is missing; usage: redllm {} {}", spec.name, spec.usage);
}

std::string CommandLine::get(const std::string& name, const std::string& fallback) const {
  const auto it = values_.find(name);
  return it == values_.end() ? fallback : it->second.back();
}

std::vector<std::string> CommandLine::get_all(const std::string& name) const {
  const auto it = values_.find(name);
  return it == values_.end() ? std::vector<std::string>() : it->second;
}

int64_t CommandLine::get_integer(const std::string& name, int64_t fallback, int64_t low, int64_t high) const {
  if (!has(name)) return fallback;
  int64_t value = 0;
  const std::string wrong = detail::parse_number<int64_t>(get(name), {.low = low, .high = high}, value);
  if (!wrong.empty()) throw ConfigError("command line: --{}: '{}' {}", name, shown(get(name)), wrong);
  return value;
}

double CommandLine::get_number(const std::string& name, double fallback, double low, double high) const {
  if (!has(name)) return fallback;
  double value = 0;
  const std::string wrong = detail::parse_number<double>(get(name), {.low = low, .high = high}, value);
  if (!wrong.empty()) throw ConfigError("command line: --{}: '{}' {}", name, shown(get(name)), wrong);
  return value;
}

std::string help_text(const CommandSpec& spec) {
  std::string text = fmt::format("usage: redllm {}{}{}{}\n\n{}\n\noptions:\n", spec.name,
                                 spec.takes_config ? " [--config FILE]... [--section.key=value]..." : "",
                                 spec.usage.empty() ? "" : " ", spec.usage, spec.summary);
  std::vector<CommandOption> options = spec.options;
  if (spec.takes_config) {
    options.insert(options.begin(),
                   {{"config", "FILE", "INI file; repeatable, a later one wins", true},
                    {"section.key", "VALUE", "one key of the configuration (below); wins over files", true}});
  }
  options.push_back({"help", "", "this text", false});
  for (const CommandOption& option : options) {
    const std::string left = option.argument.empty() ? fmt::format("--{}", option.name)
                                                     : fmt::format("--{}={}", option.name, option.argument);
    text += fmt::format("  {:<26} {}\n", left, option.help);
  }
  if (!spec.example.empty()) text += fmt::format("\nexample:\n  {}\n", spec.example);
  if (spec.takes_config) {
    text.push_back('\n');
    text += help_of_keys();
  }
  return text;
}

}  // namespace red::config
