#pragma once

#include <mpi.h>

namespace red::parallel {

/// True where all ranks of comm are on one machine, as MPI sees it. Collective, and blocks: for the start.
bool on_one_machine(MPI_Comm comm);

}  // namespace red::parallel
