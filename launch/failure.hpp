// How the program ends: which rank speaks, and with which exit code. Before MPI runs, ranks know each other
// by the launcher's environment alone.
#pragma once

#include <exception>

namespace red::launch {

/// This process's rank as mpirun or srun announced it; 0 without either.
int announced_rank();

/// Prints what went wrong and returns the exit code. Mistakes of the configuration, which every rank finds
/// alike, are printed by rank 0 alone; other failures by each rank that is still there a second later. A
/// failure that other ranks have to learn of is told to them by the communicator (parallel/) before the
/// exception gets here.
int report_failure(const std::exception_ptr& failure);

/// Flushes standard output. Throws IoError when not all of it arrived (a full disk behind a redirection).
void finish_output();

}  // namespace red::launch
