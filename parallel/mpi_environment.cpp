#include "parallel/mpi_environment.hpp"

#include <unistd.h>

#include <charconv>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <initializer_list>
#include <string>

#include "base/check.hpp"
#include "base/log.hpp"

namespace red::parallel {
namespace {

// Enough for everybody to hear why the run ends, on a busy machine too.
constexpr double kLingerSeconds = 3;

std::optional<int> first_number(std::initializer_list<const char*> variables) {
  for (const char* name : variables) {
    const char* value = std::getenv(name);
    int number = 0;
    if (value != nullptr && std::from_chars(value, value + std::strlen(value), number).ec == std::errc())
      return number;
  }
  return std::nullopt;
}

/// mpirun has a daemon on each other machine, which waits for mpirun's word; where the network is gone it
/// would wait on TCP for a quarter of an hour. Asked to end, it also ends the ranks that are left here.
void end_daemon_of_launcher() {
  const pid_t parent = getppid();
  std::ifstream in(fmt::format("/proc/{}/comm", parent));
  std::string name;
  if (std::getline(in, name) && (name == "orted" || name == "prted")) kill(parent, SIGTERM);
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
  if (std::uncaught_exceptions() != 0) fail(static_cast<int>(ExitCode::internal), "left by an exception");
  try {
    Request request = world_->barrier();
    world_->wait(request, "the end of the run");
  } catch (const std::exception& error) {
    fail(error);
  }
  world_.reset();
  context_->channel().close();
  context_.reset();
  if (finalizes_) MPI_Finalize();
}

void MpiEnvironment::fail(int exit_code, std::string_view text) {
  // The launcher ends all ranks as soon as one has left. This one leaves by itself, and soon.
  std::signal(SIGTERM, SIG_IGN);
  const Failure first = channel().abort(exit_code, text);
  if (on_failure_) std::exchange(on_failure_, {})(first);
  std::fflush(nullptr);
  if (first.speaker == rank() && !channel().is_told()) {
    log::rank_error("{}", first.text);
    channel().told();
  }
  channel().linger(kLingerSeconds);
  const bool cut_off = channel().cut_off();
  channel().close();
  if (cut_off) end_daemon_of_launcher();
  _exit(first.exit_code);
}

void MpiEnvironment::fail(const std::exception& error) {
  const auto* own = dynamic_cast<const Error*>(&error);
  if (own != nullptr) fail(static_cast<int>(own->code()), error.what());
  fail(static_cast<int>(ExitCode::internal), fmt::format("unexpected: {}", error.what()));
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
