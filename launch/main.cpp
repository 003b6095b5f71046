// redllm COMMAND ...: finds the command, and is the only place that catches exceptions.
#include <fmt/format.h>

#include <exception>
#include <span>
#include <string>
#include <vector>

#include "launch/commands.hpp"
#include "launch/failure.hpp"

namespace {

constexpr std::string_view kAbout =
    "redllm trains, evaluates and samples RedLLM (encoder-decoder) and DecLLM (decoder-only) language "
    "models.\n\n";

int run(std::span<const std::string> args) {
  if (!args.empty() && args.front() == "--version") {
    fmt::print("redllm {}\n", RED_VERSION);
    return 0;
  }
  if (!args.empty() && (args.front() == "--help" || args.front() == "-h")) fmt::print("{}", kAbout);
  return red::launch::dispatch("redllm", red::launch::commands(), args);
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const std::vector<std::string> args(argv + 1, argv + argc);
    const int code = run(args);
    red::launch::finish_output();
    return code;
  } catch (...) {
    return red::launch::report_failure(std::current_exception());
  }
}
