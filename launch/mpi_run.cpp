#include "launch/mpi_run.hpp"

#include <chrono>
#include <exception>
#include <limits>
#include <thread>

#include "base/error.hpp"
#include "base/log.hpp"

namespace red::launch {
namespace {

/// Ranks that do not know each other would all be the first. Throws ConfigError.
void check_number_of_ranks(int num_ranks) {
  const int launched = parallel::num_ranks_from_launcher();
  if (launched == 1 || launched == num_ranks) return;
  throw ConfigError(
      "the launcher started {} ranks, but MPI sees {}: use Open MPI's mpirun (slurm/site.env: "
      "SITE_LAUNCHER=mpirun), srun --mpi=pmix with an Open MPI that was built with PMIx, or one process",
      launched, num_ranks);
}

}  // namespace

int run_under_mpi(const parallel::MpiOptions& options,
                  const std::function<int(parallel::MpiEnvironment&)>& body) {
  parallel::MpiEnvironment environment(options);
  log::set_rank(environment.rank(), environment.size());
  try {
    check_number_of_ranks(environment.size());
    return body(environment);
  } catch (...) {
    // Not left to main: unwinding would end MPI, which waits for ranks that wait for this one.
    environment.fail(std::current_exception());
  }
}

int run_on_first_rank(const std::function<int()>& body) {
  const int launched = parallel::num_ranks_from_launcher();
  if (launched == 1) return body();
  parallel::MpiOptions options;
  options.deadline_s = std::numeric_limits<double>::infinity();
  return run_under_mpi(options, [&](parallel::MpiEnvironment& environment) {
    parallel::Communicator& world = environment.world();
    int32_t code = environment.rank() == 0 ? body() : 0;
    parallel::Request request = world.broadcast(make_tensor(&code, 1, 1), 0);
    // Asleep in between: the cores are the first rank's.
    while (!world.test(request)) std::this_thread::sleep_for(std::chrono::milliseconds(20));
    world.wait(request, "the first rank's work");
    return static_cast<int>(code);
  });
}

}  // namespace red::launch
