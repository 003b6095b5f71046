#include "launch/failure.hpp"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <string>

#include "base/failure.hpp"
#include "launch/mpi_run.hpp"

namespace red::launch {

int report_failure(const std::exception_ptr& failure) {
  const FailureText text = describe_failure(failure);
  std::fflush(stdout);
  if (parallel::num_ranks_from_launcher() > 1 && !parallel::mpi_was_started()) {
    // The others found the same, or are on their way to a meeting: there it is told, by one rank.
    try {
      run_under_mpi({}, [&](parallel::MpiEnvironment&) -> int { std::rethrow_exception(failure); });
    } catch (...) {
      std::fprintf(stderr, "redllm: MPI does not start: %s\n",
                   describe_failure(std::current_exception()).message.c_str());
    }
  }
  const std::string line = fmt::format("redllm: {}\n", text.message);
  std::fputs(line.c_str(), stderr);
  return static_cast<int>(text.code);
}

void finish_output() {
  if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0)
    throw IoError("standard output: not everything could be written: {}", std::strerror(errno));
}

}  // namespace red::launch
