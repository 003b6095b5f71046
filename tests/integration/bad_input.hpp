// The table of bad inputs: each row is a command line and files, the exit code, and what the message must
// say. One file of rows per kind of input (bad_input_configuration.cpp, bad_input_tokens.cpp, ...);
// bad_input_test.cpp runs them all.
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "base/error.hpp"

namespace red::test {

struct BadInput {
  std::string name;  ///< CamelCase, of the test
  std::map<std::string, std::string>
      files;  ///< written into the working directory first; a name ending in '/': a folder
  std::vector<std::string> args;     ///< of redllm; {configs} stands for the project's configs folder
  std::vector<std::string> message;  ///< each must occur on standard error
  ExitCode code = ExitCode::configuration;
  /// Rows that begin with what is right (see copy_good_inputs) and then damage it; runs in the working
  /// directory before the program.
  std::function<void(const std::filesystem::path& here)> prepare = {};
};

std::vector<BadInput> bad_configurations();
std::vector<BadInput> bad_texts();  ///< and tokenizers
std::vector<BadInput> bad_token_files();
std::vector<BadInput> bad_checkpoints();  ///< and prompts

}  // namespace red::test
