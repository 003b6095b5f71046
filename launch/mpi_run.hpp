// MPI's start and end around a command, and failures that reach every rank. Whatever can be checked without
// the other ranks (options, configuration files) is checked before this, so that a mistake costs no MPI
// start.
#pragma once

#include <functional>

#include "parallel/mpi_environment.hpp"

namespace red::launch {

/// Runs `body` on this rank with MPI up, and returns what it returns. When it throws on any rank the run ends
/// on all of them: one rank prints the first failure, and all leave with its exit code.
int run_under_mpi(const parallel::MpiOptions& options,
                  const std::function<int(parallel::MpiEnvironment&)>& body);

}  // namespace red::launch
