// How the program ends when something failed outside of MPI's run (see mpi_run.hpp): with one message and, on
// every rank, the same exit code.
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

/// For main, when MPI does not run: prints what went wrong and returns the exit code. On several ranks it
/// starts MPI, so that one of them prints the first failure, also one that only some ranks have; then it does
/// not return.
int report_failure(const std::exception_ptr& failure);

/// Flushes standard output. Throws IoError when not all of it arrived (a full disk behind a redirection).
void finish_output();

}  // namespace red::launch
