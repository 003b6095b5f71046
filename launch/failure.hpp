// How the program ends when something failed outside of MPI's run (see mpi_run.hpp): with one message and, on
// every rank, the same exit code.
#pragma once

#include <exception>

namespace red::launch {

/// For main, when MPI does not run: prints what went wrong and returns the exit code. On several ranks it
/// starts MPI, so that one of them prints the first failure, also one that only some ranks have; then it does
/// not return.
int report_failure(const std::exception_ptr& failure);

/// Flushes standard output. Throws IoError when not all of it arrived (a full disk behind a redirection).
void finish_output();

}  // namespace red::launch
