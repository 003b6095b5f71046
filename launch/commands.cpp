#include "launch/commands.hpp"

#include <algorithm>
#include <array>
#include <cstdio>
#include <vector>

#include "base/error.hpp"
#include "config/nearest_match.hpp"
#include "launch/failure.hpp"
#include "launch/mpi_run.hpp"

namespace red::launch {
namespace {

std::string usage(std::string_view parent, std::span<const Command> list) {
  std::string text = fmt::format("usage: {} COMMAND ...\n\ncommands:\n", parent);
  std::size_t width = 12;
  for (const Command& command : list) width = std::max(width, command.name.size());
  for (const Command& command : list)
    text += fmt::format("  {:<{}} {}\n", command.name, width, command.summary);
  return text + fmt::format("\n{} COMMAND --help tells more.\n", parent);
}

/// A command that works as one process, on any number of ranks.
template <int (*kRun)(std::span<const std::string>)>
int on_first_rank(std::span<const std::string> args) {
  return run_on_first_rank([args] {
    const int code = kRun(args);
    finish_output();
    return code;
  });
}

}  // namespace

std::span<const Command> commands() {
  static constexpr std::array list = {
      Command{"tokenizer", "make a tokenizer, encode and decode with it", on_first_rank<run_tokenizer>},
      Command{"data", "make, check and show token files", on_first_rank<run_data>},
      Command{"train", "train a model, or go on with a run", run_train},
      Command{"eval", "measure a trained model", run_eval},
      Command{"generate", "continue prompts with a trained model", run_generate},
      Command{"bench", "time training steps on synthetic tokens", run_bench},
      Command{"trace", "write down what every rank does in some training steps, for a viewer", run_trace},
      Command{"config", "check a configuration and print what comes out of it, or the list of keys",
              on_first_rank<run_config>},
      Command{"plan", "print what a layout asks of every rank: memory, layers, bubble",
              on_first_rank<run_plan>},
      Command{"convert", "to and from Transformers; one file; the mean of checkpoints",
              on_first_rank<run_convert>},
      Command{"preflight", "try the machines that a run was given", run_preflight},
      Command{"status", "how a run is doing, or how it ended", on_first_rank<run_status>},
      Command{"inspect", "show what a checkpoint holds, or which samples a step has",
              on_first_rank<run_inspect>},
  };
  return list;
}

int print_help(const config::CommandSpec& spec) {
  fmt::print("{}", config::help_text(spec));
  return 0;
}

int dispatch(std::string_view parent, std::span<const Command> list, std::span<const std::string> args) {
  if (args.empty()) throw ConfigError("{} needs a command\n{}", parent, usage(parent, list));
  const std::string& name = args.front();
  if (name == "--help" || name == "-h") {
    fmt::print("{}", usage(parent, list));
    return 0;
  }
  std::vector<std::string> names;
  for (const Command& command : list) {
    if (command.name == name) return command.run(args.subspan(1));
    names.emplace_back(command.name);
  }
  throw ConfigError("command line: '{}' is no command of {}{}; {} --help lists them", config::shown(name),
                    parent, config::did_you_mean(name, names), parent);
}

}  // namespace red::launch
