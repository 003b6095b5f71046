// The table of bad inputs: each row is a command line and files, the exit code, and what the message must
// say. One file of rows per kind of input (bad_input_configuration.cpp, ...); bad_input_test.cpp runs them
// all.
#pragma once

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
};

std::vector<BadInput> bad_configurations();

}  // namespace red::test
