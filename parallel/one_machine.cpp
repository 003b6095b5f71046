#include "parallel/one_machine.hpp"

#include "parallel/mpi_check.hpp"

namespace red::parallel {

bool on_one_machine(MPI_Comm comm) {
  MPI_Comm machine = MPI_COMM_NULL;
  int here = 0, all = 0;
  RED_MPI(MPI_Comm_split_type(comm, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &machine));
  RED_MPI(MPI_Comm_size(machine, &here));
  RED_MPI(MPI_Comm_free(&machine));
  RED_MPI(MPI_Comm_size(comm, &all));
  return here == all;
}

}  // namespace red::parallel
