#include "launch/mpi_run.hpp"

#include <exception>

#include "base/log.hpp"
#include "launch/failure.hpp"

namespace red::launch {

int run_under_mpi(const parallel::MpiOptions& options,
                  const std::function<int(parallel::MpiEnvironment&)>& body) {
  parallel::MpiEnvironment environment(options);
  log::set_rank(environment.rank(), environment.size());
  try {
    return body(environment);
  } catch (...) {
    // Not left to main: unwinding would end MPI, which waits for ranks that wait for this one.
    const FailureText failure = describe_failure(std::current_exception());
    environment.fail(static_cast<int>(failure.code), failure.message);
  }
}

}  // namespace red::launch
