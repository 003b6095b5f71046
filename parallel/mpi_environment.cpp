#include "parallel/mpi_environment.hpp"

#include <charconv>
#include <cstdlib>
#include <cstring>
#include <initializer_list>

#include "base/check.hpp"

namespace red::parallel {
namespace {

std::optional<int> first_number(std::initializer_list<const char*> variables) {
  for (const char* name : variables) {
    const char* value = std::getenv(name);
    int number = 0;
    if (value != nullptr && std::from_chars(value, value + std::strlen(value), number).ec == std::errc())
      return number;
  }
  return std::nullopt;
}

}  // namespace

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
  context_ = std::make_shared<MpiContext>(comm, options);
  world_ = std::make_unique<MpiCommunicator>(context_, comm, "world");
}

MpiEnvironment::~MpiEnvironment() {
  if (std::uncaught_exceptions() != 0) fail(std::make_exception_ptr(LogicError("left by an exception")));
  try {
    Request request = world_->barrier();
    world_->wait(request, "the end of the run");
  } catch (...) {
    fail(std::current_exception());
  }
  world_.reset();
  context_->channel().close();
  context_.reset();
  if (finalizes_) MPI_Finalize();
}

std::optional<int> rank_from_launcher() {
  return first_number({"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID"});
}

bool mpi_was_started() {
  int initialized = 0;
  MPI_Initialized(&initialized);
  return initialized != 0;
}

int num_ranks_from_launcher() {
  // Not SLURM_NTASKS: a batch script has it for the steps that it may start.
  return first_number({"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"}).value_or(1);
}

}  // namespace red::parallel
