#include "device/cuda_check.hpp"

#include "base/error.hpp"
#include "base/log.hpp"
#include "device/cuda_device.hpp"
#include "device/gpu_sensors.hpp"

namespace red::detail {
namespace {

std::string failure(cudaError_t error, const char* call, const char* file, int line) {
  return fmt::format("{}:{}: {} failed: {} ({})", file, line, call, cudaGetErrorName(error),
                     cudaGetErrorString(error));
}

}  // namespace

void throw_if_gpu_lost(const std::string& what) {
  const std::string loss = loss_of_gpu();
  if (!loss.empty()) throw GpuLostError(fmt::format("{} ({})", loss, what));
}

void cuda_failed(cudaError_t error, const char* call, const char* file, int line) {
  const std::string what = failure(error, call, file, line);
  throw_if_gpu_lost(what);
  throw LogicError("{}", what);
}

void log_cuda_failure(cudaError_t error, const char* call, const char* file, int line) noexcept {
  try {
    log::rank_warning("{}", failure(error, call, file, line));
  } catch (...) {  // NOLINT(bugprone-empty-catch): there is nobody left to tell
  }
}

}  // namespace red::detail
