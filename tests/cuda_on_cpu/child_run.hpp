// Runs something that may end the program in a child, and tells what became of it.
#pragma once

#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <functional>
#include <string>

namespace cuda_on_cpu {

struct ChildRun {
  bool good = false;   ///< it returned true
  std::string output;  ///< stderr

  /// Whether it was noticed, with such words if they are not empty.
  bool caught(const std::string& words) const { return !good && output.find(words) != std::string::npos; }
};

inline ChildRun run_in_child(const std::function<bool()>& body) {
  std::array<int, 2> ends{};
  if (pipe(ends.data()) != 0) return {};
  std::fflush(nullptr);
  const pid_t child = fork();
  if (child == 0) {
    dup2(ends[1], STDERR_FILENO);
    close(ends[0]);
    close(ends[1]);
    const bool good = body();
    _exit(good ? 0 : 1);
  }
  close(ends[1]);
  ChildRun run;
  std::array<char, 4096> piece{};
  for (ssize_t size = 0; (size = read(ends[0], piece.data(), piece.size())) > 0;)
    run.output.append(piece.data(), static_cast<std::size_t>(size));
  close(ends[0]);
  int status = 0;
  waitpid(child, &status, 0);
  run.good = WIFEXITED(status) && WEXITSTATUS(status) == 0;
  return run;
}

}  // namespace cuda_on_cpu
