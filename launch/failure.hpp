// How the program ends: which rank speaks, and with which exit code. Before MPI runs, ranks know each other
// by the launcher's environment alone; while it runs, see ranks.hpp.
#pragma once

#include <exception>
#include <string>

#include "base/error.hpp"

namespace red::launch {

/// What an exception means to the user.
struct FailureText {
  ExitCode code = ExitCode::internal;
  std::string message;
};
FailureText describe_failure(const std::exception_ptr& failure);

/// For main, when MPI does not run: prints what went wrong and returns the exit code. Mistakes of the
/// configuration, which every rank finds alike, are printed by rank 0 alone; other failures by each rank that
/// is still there a second later.
int report_failure(const std::exception_ptr& failure);

/// Flushes standard output. Throws IoError when not all of it arrived (a full disk behind a redirection).
void finish_output();

}  // namespace red::launch
