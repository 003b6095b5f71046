// redllm config show|docs: the effective configuration, and the documentation of all keys.
#include <fmt/format.h>

#include <array>
#include <cstdio>
#include <vector>

#include "base/error.hpp"
#include "config/command_line.hpp"
#include "config/nearest_match.hpp"
#include "config/print.hpp"
#include "config/reference.hpp"
#include "config/validate.hpp"
#include "launch/commands.hpp"

namespace red::launch {
namespace {

config::CommandSpec show_spec() {
  return {
      .name = "config show",
      .usage = "[--for USE]",
      .summary =
          "Reads and checks a configuration and prints every key with its value and the place that set it.\n"
          "The output is itself a configuration file.",
      .options = {{"for", "USE",
                   "what to check it for: train, bench, model (default: what can be said of any part of one)",
                   false}},
      .takes_config = true,
      .example =
          "redllm config show --config configs/models/red_150m.ini --config configs/pretrain.ini "
          "--train.micro_batch=4"};
}

config::CommandSpec docs_spec() {
  return {.name = "config docs",
          .summary = "Prints docs/configuration.md from the table of keys that the program itself uses.",
          .example = "redllm config docs > docs/configuration.md"};
}

int show(std::span<const std::string> args) {
  const config::CommandSpec spec = show_spec();
  const config::CommandLine line(spec, args);
  if (line.help()) return print_help(spec);
  const config::Loaded loaded = config::load(line.sources());
  const std::string use = line.get("for", "none");
  if (use == "train") {
    config::validate(loaded, config::kTrainUse);
  } else if (use == "bench") {
    config::validate(loaded, config::kBenchUse);
  } else if (use == "model") {
    config::validate(loaded, config::kModelUse);
  } else if (line.has("for")) {
    const std::vector<std::string> uses = {"train", "bench", "model"};
    throw ConfigError("command line: --for={} is none of train, bench, model{}", config::shown(use),
                      config::did_you_mean(use, uses));
  }
  fmt::print("{}", config::print_effective(loaded));
  return 0;
}

int docs(std::span<const std::string> args) {
  const config::CommandSpec spec = docs_spec();
  const config::CommandLine line(spec, args);
  fmt::print("{}", line.help() ? config::help_text(spec) : config::configuration_markdown());
  return 0;
}

}  // namespace

int run_config(std::span<const std::string> args) {
  static constexpr std::array list = {
      Command{"show", "check a configuration and print what comes out of it", show},
      Command{"docs", "print the documentation of all keys", docs},
  };
  return dispatch("redllm config", list, args);
}

}  // namespace red::launch
