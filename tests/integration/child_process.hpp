// Runs a program as a child and keeps what it printed, how it ended and what it cost.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace red::test {

struct ChildResult {
  int exit_code = -1;  ///< -1: ended by a signal
  int signal = 0;      ///< that ended it; SIGKILL past the deadline
  std::string out;     ///< standard output
  std::string err;     ///< standard error
  double cpu_s = 0;    ///< user and system time
  long max_rss_kib = 0;
};

/// command[0] is the program's path. Throws std::runtime_error when it cannot be started.
ChildResult run_child(const std::vector<std::string>& command, const std::filesystem::path& working_directory,
                      double deadline_s = 60);

}  // namespace red::test
