#include "parallel/mpi_check.hpp"

namespace red::parallel::detail {

void mpi_failed(int code, const char* expression, const char* file, int line) {
  int rank = -1, length = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  char text[MPI_MAX_ERROR_STRING + 1] = "no text";
  MPI_Error_string(code, text, &length);
  throw CommunicationError("{}:{}: {} failed on rank {}: {}", file, line, expression, rank, text);
}

}  // namespace red::parallel::detail
