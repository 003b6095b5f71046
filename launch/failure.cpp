#include "launch/failure.hpp"

#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <string>
#include <string_view>
#include <system_error>

#include "base/error.hpp"

namespace red::launch {
namespace {

struct Report {
  ExitCode code = ExitCode::internal;
  std::string message;
};

Report report_of(const std::exception_ptr& failure) {
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

}  // namespace

int announced_rank() {
  // In a job script of Slurm SLURM_PROCID is set too, so mpirun's own names come first.
  for (const char* name : {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "SLURM_PROCID"}) {
    const char* text = std::getenv(name);
    if (text == nullptr) continue;
    int rank = 0;
    const std::string_view view = text;
    const auto [end, error] = std::from_chars(view.data(), view.data() + view.size(), rank);
    if (error == std::errc() && end == view.data() + view.size() && rank >= 0) return rank;
  }
  return 0;
}

int report_failure(const std::exception_ptr& failure) {
  const Report report = report_of(failure);
  const int rank = announced_rank();
  std::fflush(stdout);
  if (rank != 0) {
    // mpirun ends the other ranks as soon as one leaves with an error, so rank 0 gets the time to speak
    // first.
    ::sleep(1);
    // Every rank reads the same configuration and finds the same mistakes: said once.
    if (report.code == ExitCode::configuration) return static_cast<int>(report.code);
  }
  const std::string line = rank == 0 ? fmt::format("redllm: {}\n", report.message)
                                     : fmt::format("redllm: rank {}: {}\n", rank, report.message);
  std::fputs(line.c_str(), stderr);
  return static_cast<int>(report.code);
}

void finish_output() {
  if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0)
    throw IoError("standard output: not everything could be written: {}", std::strerror(errno));
}

}  // namespace red::launch
