// failing_program RANK HOW: runs on all ranks as a command does; rank RANK (or every rank: "all") fails.
#include <stdexcept>
#include <string>
#include <system_error>
#include <vector>

#include "launch/failure.hpp"
#include "launch/mpi_run.hpp"

namespace {

void fail(const std::string& how) {
  if (how == "configuration") throw red::ConfigError("a layout that does not fit");
  if (how == "data") throw red::DataError("a token file that is cut short");
  if (how == "io") throw std::system_error(ENOSPC, std::generic_category(), "a checkpoint");
  if (how == "memory") throw std::bad_alloc();
  if (how == "internal") throw std::out_of_range("an index");
  throw red::ConfigError("'{}' is no way to fail", how);
}

int run(const std::string& who, const std::string& how) {
  return red::launch::run_under_mpi({}, [&](red::parallel::MpiEnvironment& environment) {
    if (who == "all" || who == std::to_string(environment.rank())) fail(how);
    red::parallel::Request request = environment.world().barrier();
    environment.world().wait(request, "the others");
    return 0;
  });
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const std::vector<std::string> args(argv + 1, argv + argc);
    return run(args.at(0), args.at(1));
  } catch (...) {
    return red::launch::report_failure(std::current_exception());
  }
}
