// RED_MPI: the one way to call MPI. MPI_ERRORS_RETURN is set on every communicator, so an error comes back as
// a code and becomes a CommunicationError with the call, its place, the rank and MPI's own text.
#pragma once

#include <mpi.h>

#include "base/error.hpp"

namespace red::parallel::detail {

[[noreturn]] void mpi_failed(int code, const char* expression, const char* file, int line);

}  // namespace red::parallel::detail

#define RED_MPI(call)                                                               \
  do {                                                                              \
    if (const int red_mpi_code = (call); red_mpi_code != MPI_SUCCESS) [[unlikely]]  \
      ::red::parallel::detail::mpi_failed(red_mpi_code, #call, __FILE__, __LINE__); \
  } while (false)
