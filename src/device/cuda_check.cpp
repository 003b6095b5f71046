#include "device/cuda_check.hpp"

#include "base/error.hpp"
#include "base/log.hpp"

namespace red::detail {
namespace {

std::string failure(cudaError_t error, const char* call, const char* file, int line) {
  return fmt::format("{}:{}: {} failed: {} ({})", file, line, call, cudaGetErrorName(error),
                     cudaGetErrorString(error));
}

}  // namespace

void cuda_failed(cudaError_t error, const char* call, const char* file, int line) {
  throw LogicError("{}", failure(error, call, file, line));
}

void log_cuda_failure(cudaError_t error, const char* call, const char* file, int line) noexcept {
  try {
    log::rank_warning("{}", failure(error, call, file, line));
  } catch (...) {  // NOLINT(bugprone-empty-catch): there is nobody left to tell
  }
}

}  // namespace red::detail
