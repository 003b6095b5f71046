#include <array>
#include <map>
#include <vector>

#include "base/log.hpp"
#include "device/cuda_device.hpp"
#include "parallel/device_communicator.hpp"
#include "parallel/nccl_world.hpp"
#include "parallel/staged_communicator.hpp"

namespace red::parallel {
namespace {

/// Why the ranks cannot use NCCL; empty when they can. Collective, and the same on every rank.
std::string obstacle(Communicator& world) {
  using Identity = std::array<uint8_t, 16>;
  std::vector<Identity> gpus(static_cast<std::size_t>(world.size()));
  gpus[static_cast<std::size_t>(world.rank())] = red::detail::gpu_identity();
  const Tensor all = make_tensor(gpus.data()->data(), world.size(), static_cast<int64_t>(sizeof(Identity)));
  Request request = world.all_gather(all, all.row_range(world.rank(), 1));
  world.wait(request, "which GPU each rank has");
  std::map<Identity, std::size_t> first;
  for (std::size_t rank = 0; rank < gpus.size(); ++rank) {
    const auto [found, is_new] = first.emplace(gpus[rank], rank);
    if (!is_new) return fmt::format("ranks {} and {} share a GPU", found->second, rank);
  }
  if (nccl_world_version().empty()) return "this program was built without it (docs/cuda.md)";
  return "";
}

}  // namespace

std::unique_ptr<Communicator> device_communicator(MpiEnvironment& mpi, Stream& stream,
                                                  const TransportOptions& options) {
  const bool alone = mpi.size() == 1;
  if (alone || options.transport == Transport::staged) {
    if (!alone)
      log::info("ranks exchange GPU memory over MPI, through host memory: parallel.transport = staged");
    return std::make_unique<StagedCommunicator>(mpi.world(), stream);
  }
  const std::string why_not = obstacle(mpi.world());
  if (why_not.empty()) {
    log::info("ranks exchange GPU memory over NCCL {}", nccl_world_version());
    return nccl_world(mpi, stream, options);
  }
  if (options.transport == Transport::nccl)
    throw ConfigError("parallel.transport = nccl, but NCCL cannot be used: {}; choose auto", why_not);
  log::info("ranks exchange GPU memory over MPI, through host memory, which is slow; not over NCCL: {}",
            why_not);
  return std::make_unique<StagedCommunicator>(mpi.world(), stream);
}

std::string device_communicator_version() {
  return nccl_world_version();
}

}  // namespace red::parallel
