// Starts a program on ranks of its own that meet trouble, and tells how it ended.
#pragma once

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>

namespace red::parallel {

struct Outcome {
  int exit_code = -1;
  std::string output;
  double seconds = 0;
  bool processes_left = false;
};

/// Whether a process has the marker among its arguments.
inline bool is_running(const std::string& marker) {
  for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
    std::ifstream file(entry.path() / "cmdline");
    std::string line{std::istreambuf_iterator<char>(file), {}};
    if (line.find("abort_program") != std::string::npos && line.find(marker) != std::string::npos)
      return true;
  }
  return false;
}

inline Outcome run_ranks(const std::string& program, const std::string& mode, int num_ranks) {
  const std::string marker = "marker-" + std::to_string(getpid()) + "-" + mode;
  // Other tests look for leaks; at the end of a program Open MPI's plug-ins are gone, and their leaks
  // nameless.
  const std::string command =
      std::string("ASAN_OPTIONS=detect_leaks=0 " RED_SOURCE_DIR "/launch/local.sh -n ") +
      std::to_string(num_ranks) + " " + program + " " + mode + " " + marker + " 2>&1";
  Outcome outcome;
  const auto start = std::chrono::steady_clock::now();
  FILE* pipe = popen(command.c_str(), "r");
  for (int c = fgetc(pipe); c != EOF; c = fgetc(pipe)) outcome.output.push_back(static_cast<char>(c));
  const int status = pclose(pipe);
  outcome.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  outcome.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  for (int turn = 0; turn < 20 && is_running(marker); ++turn) {
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
  outcome.processes_left = is_running(marker);
  return outcome;
}

inline int count(const std::string& text, const std::string& part) {
  int found = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++found;
  return found;
}

/// One message, the right exit code, everything gone within 30 s of the trouble.
inline void expect_end(const Outcome& outcome, int exit_code, const std::string& message) {
  EXPECT_EQ(outcome.exit_code, exit_code) << outcome.output;
  EXPECT_EQ(count(outcome.output, message), 1) << "expected: " << message << "\n" << outcome.output;
  EXPECT_EQ(count(outcome.output, " error: ") - count(outcome.output, " internal error: "), 1)
      << outcome.output;
  EXPECT_EQ(count(outcome.output, "all steps done"), 0);
  EXPECT_LT(outcome.seconds, 30);
  EXPECT_FALSE(outcome.processes_left);
}

}  // namespace red::parallel
