#include "launch/failure.hpp"

#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <new>
#include <string>
#include <system_error>

#include "parallel/mpi_environment.hpp"

namespace red::launch {

FailureText describe_failure(const std::exception_ptr& failure) {
  try {
    std::rethrow_exception(failure);
  } catch (const Error& error) {
    const bool internal = error.code() == ExitCode::internal;
    return {error.code(), internal ? fmt::format("internal error: {}", error.what()) : error.what()};
  } catch (const std::bad_alloc&) {
    return {ExitCode::internal,
            "out of memory: use a smaller train.micro_batch, a smaller model or more ranks"};
  } catch (const std::system_error& error) {
    return {ExitCode::io, error.what()};
  } catch (const std::exception& error) {
    return {ExitCode::internal, fmt::format("internal error: {}", error.what())};
  } catch (...) {
    return {ExitCode::internal, "internal error of an unknown kind"};
  }
}

int report_failure(const std::exception_ptr& failure) {
  const FailureText text = describe_failure(failure);
  const int rank = parallel::rank_from_launcher().value_or(0);
  std::fflush(stdout);
  if (rank != 0) {
    // mpirun ends the other ranks as soon as one leaves with an error, so rank 0 gets the time to speak
    // first.
    ::sleep(1);
    // Every rank reads the same configuration and finds the same mistakes: said once.
    if (text.code == ExitCode::configuration) return static_cast<int>(text.code);
  }
  const std::string line = rank == 0 ? fmt::format("redllm: {}\n", text.message)
                                     : fmt::format("redllm: rank {}: {}\n", rank, text.message);
  std::fputs(line.c_str(), stderr);
  return static_cast<int>(text.code);
}

void finish_output() {
  if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0)
    throw IoError("standard output: not everything could be written: {}", std::strerror(errno));
}

}  // namespace red::launch
