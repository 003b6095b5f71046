#include "shim/launch.hpp"

#include "fakes/runtime_state.hpp"
#include "runtime/grid.hpp"
#include "runtime/ready_queue.hpp"
#include "runtime/streams.hpp"

namespace cuda_on_cpu {

namespace {

/// Limits of every GPU that we compile for.
bool valid(const LaunchConfig& config) {
  const dim3 grid = config.grid, block = config.block;
  const uint64_t threads = uint64_t{block.x} * block.y * block.z;
  return threads >= 1 && threads <= kMaxThreads && block.z <= 64 && grid.x >= 1 && grid.x <= 0x7FFFFFFFU &&
         grid.y >= 1 && grid.y <= 65535 && grid.z >= 1 && grid.z <= 65535;
}

}  // namespace

void launch(const LaunchConfig& config, cudaStream_t stream, std::function<void()> body) {
  if (!valid(config)) {
    remember(cudaErrorInvalidConfiguration);
    return;
  }
  if (!shared_bytes_allowed(config.kernel, config.shared_bytes)) {
    remember(cudaErrorInvalidValue);
    return;
  }
  streams().push(stream, [config, body = std::move(body)] { run_grid(config, body); });
}

}  // namespace cuda_on_cpu
