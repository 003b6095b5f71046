// MPI's start and end around a command, and failures that reach every rank. Whatever can be checked without
// the other ranks (options, configuration files) is checked before this.
#pragma once

#include <functional>

#include "parallel/mpi_environment.hpp"

namespace red::launch {

/// Runs `body` on this rank with MPI up, and returns what it returns. When it throws on any rank the run ends
/// on all of them: one rank prints the first failure, and all leave with its exit code. So it does, at once,
/// when MPI knows of other ranks than the launcher started.
int run_under_mpi(const parallel::MpiOptions& options,
                  const std::function<int(parallel::MpiEnvironment&)>& body);

/// For commands that work as one process. Started on several ranks, the first one does the work, once, and
/// the others wait, however long that takes; all leave with its exit code. Without a launcher no MPI is
/// started.
int run_on_first_rank(const std::function<int()>& body);

}  // namespace red::launch
