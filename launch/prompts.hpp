// Prompts of `redllm generate`, from the command line and from files.
#pragma once

#include <string>
#include <vector>

#include "config/command_line.hpp"

namespace red::launch {

/// --prompt, --prompt-file and --prompts, for a CommandSpec.
std::vector<config::CommandOption> prompt_options();

/// All prompts: those of --prompt first, then whole files, then files of many. Throws ConfigError where there
/// is none, DataError with file and line for what cannot be read, is empty or no UTF-8.
std::vector<std::string> read_prompts(const config::CommandLine& line);

}  // namespace red::launch
