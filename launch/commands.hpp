// The program's commands: one file each, launch/command_NAME.cpp. A command takes the words behind its name
// and returns the exit code; errors are exceptions, which main alone catches.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "config/command_line.hpp"

namespace red::launch {

// One declaration per command; the list in commands.cpp is in the order of --help.
int run_tokenizer(std::span<const std::string> args);
int run_data(std::span<const std::string> args);
int run_train(std::span<const std::string> args);
int run_eval(std::span<const std::string> args);
int run_loglikelihood(std::span<const std::string> args);  ///< of eval
int run_convert(std::span<const std::string> args);
int run_generate(std::span<const std::string> args);
int run_bench(std::span<const std::string> args);
int run_config(std::span<const std::string> args);
int run_plan(std::span<const std::string> args);
int run_preflight(std::span<const std::string> args);
int run_trace(std::span<const std::string> args);
int run_status(std::span<const std::string> args);
int run_inspect(std::span<const std::string> args);

struct Command {
  std::string_view name;
  std::string_view summary;  ///< one line of --help
  int (*run)(std::span<const std::string> args);
};

std::span<const Command> commands();

/// Prints what --help tells of a command; the exit code.
int print_help(const config::CommandSpec& spec);

/// Runs the command that args begins with, from `list`; `parent` is what comes before it ("redllm", "redllm
/// data"). --help prints the list. Throws ConfigError with the nearest match for anything else.
int dispatch(std::string_view parent, std::span<const Command> list, std::span<const std::string> args);

}  // namespace red::launch
