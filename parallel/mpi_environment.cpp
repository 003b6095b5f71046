#include "parallel/mpi_environment.hpp"

#include "base/check.hpp"

namespace red::parallel {

MpiEnvironment::MpiEnvironment(const MpiOptions& options) {
  int initialized = 0, provided = 0;
  MPI_Initialized(&initialized);
  if (initialized == 0) {
    RED_MPI(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &provided));
    finalizes_ = true;
  } else {
    RED_MPI(MPI_Query_thread(&provided));
  }
  RED_CHECK(provided >= MPI_THREAD_FUNNELED, "MPI gives thread level {}", provided);
  RED_MPI(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN));
  MPI_Comm comm = MPI_COMM_NULL;
  RED_MPI(MPI_Comm_dup(MPI_COMM_WORLD, &comm));
  auto context = std::make_shared<MpiContext>(comm, options);
  world_ = std::make_unique<MpiCommunicator>(std::move(context), comm, "world");
}

MpiEnvironment::~MpiEnvironment() {
  world_.reset();
  if (finalizes_) MPI_Finalize();
}

}  // namespace red::parallel
