#include <mpi.h>
#if __has_include(<mpi-ext.h>)
#include <mpi-ext.h>  // Open MPI's: whether it knows of CUDA
#endif

#include <algorithm>
#include <array>
#include <charconv>
#include <map>
#include <optional>
#include <vector>

#include "base/log.hpp"
#include "device/cuda_device.hpp"
#include "parallel/checked_communicator.hpp"
#include "parallel/device_communicator.hpp"
#include "parallel/nccl_world.hpp"
#include "parallel/staged_communicator.hpp"
#include "parallel/star.hpp"

namespace red::parallel {
namespace {

/// Why the ranks cannot use NCCL; empty when they can.
struct Obstacle {
  bool ranks_share_gpus = false;  ///< or have instances of one
  std::string why;
};

/// Each rank's bytes, by rank. Collective.
template <std::size_t Size>
std::vector<std::array<uint8_t, Size>> gathered(Communicator& world, const std::array<uint8_t, Size>& own) {
  std::vector<std::array<uint8_t, Size>> of_rank(static_cast<std::size_t>(world.size()));
  of_rank[static_cast<std::size_t>(world.rank())] = own;
  const Tensor all = make_tensor(of_rank.data()->data(), world.size(), static_cast<int64_t>(Size));
  Request request = world.all_gather(all, all.row_range(world.rank(), 1));
  world.wait(request, "which GPU each rank has");
  return of_rank;
}

/// The first two ranks that have the same.
template <class T>
std::optional<std::pair<std::size_t, std::size_t>> first_equal(const std::vector<T>& of_rank) {
  std::map<T, std::size_t> first;
  for (std::size_t rank = 0; rank < of_rank.size(); ++rank) {
    const auto [found, is_new] = first.emplace(of_rank[rank], rank);
    if (!is_new) return std::pair(found->second, rank);
  }
  return std::nullopt;
}

/// Machine and PCI address of this rank's GPU, which instances of one that is divided (MIG) have in common.
std::array<uint8_t, 128> board() {
  const std::string text = host_name() + " " + red::detail::facts_of_gpu().pci_address;
  std::array<uint8_t, 128> bytes{};
  const std::size_t behind = text.size() > bytes.size() ? text.size() - bytes.size() : 0;
  std::copy(text.begin() + static_cast<std::ptrdiff_t>(behind), text.end(), bytes.begin());
  return bytes;
}

/// From 2.32 on NCCL's guide tells how its ranks use instances of a divided GPU; before 2.30 it refuses ranks
/// whose GPUs have one address.
bool nccl_takes_instances() {
  const std::string version = nccl_world_version();
  int major = 0, minor = 0;
  const char* const end = version.data() + version.size();
  const auto [dot, error] = std::from_chars(version.data(), end, major);
  if (error == std::errc() && dot != end) std::from_chars(dot + 1, end, minor);
  return std::pair(major, minor) >= std::pair(2, 32);
}

/// Collective, and the same on every rank.
Obstacle obstacle(Communicator& world) {
  if (const auto ranks = first_equal(gathered(world, red::detail::gpu_identity())))
    return {true, fmt::format("ranks {} and {} share a GPU", ranks->first, ranks->second)};
  const auto boards = gathered(world, board());
  if (nccl_world_version().empty()) return {false, "this program was built without it (docs/cuda.md)"};
  const auto ranks = first_equal(boards);
  if (ranks && !nccl_takes_instances())
    return {true,
            fmt::format("ranks {} and {} have instances of one divided GPU, which NCCL {} does not take",
                        ranks->first, ranks->second, nccl_world_version())};
  return {};
}

/// Whether MPI says, on every rank, that it takes GPU memory. Collective.
bool mpi_is_cuda_aware(Communicator& world) {
  double aware = 0.0;
#if defined(OMPI_HAVE_MPI_EXT_CUDA) && OMPI_HAVE_MPI_EXT_CUDA
  aware = MPIX_Query_cuda_support() == 1 ? 1.0 : 0.0;
#endif
  Request request = world.all_reduce(make_tensor(&aware, 1, 1), ReduceOp::min);
  world.wait(request, "whether MPI takes GPU memory");
  return aware > 0.0;
}

/// Over MPI. `why` it is not over NCCL, for the log.
std::unique_ptr<Communicator> over_mpi(Communicator& world, Stream& stream, Transport transport,
                                       const std::string& why) {
  const bool aware = transport != Transport::staged && mpi_is_cuda_aware(world);
  if (transport == Transport::cuda_aware && !aware) {
    throw ConfigError(
        "parallel.transport = cuda_aware, but this MPI does not say that it takes GPU memory "
        "(ompi_info | grep -i cuda tells how it was built); choose auto");
  }
  if (!aware) {
    log::info("ranks exchange GPU memory over MPI, through host memory, which is slow: {}", why);
    return std::make_unique<StagedCommunicator>(world, stream);
  }
  // Before the first message: builds that claim it and lack it crash there.
  log::info(
      "ranks exchange GPU memory over CUDA-aware MPI, sums through host memory: {} "
      "(parallel.transport=staged keeps GPU memory from MPI)",
      why);
  return std::make_unique<StagedCommunicator>(world, stream, MpiReach::device_memory);
}

std::unique_ptr<Communicator> over_chosen(MpiEnvironment& mpi, Stream& stream,
                                          const TransportOptions& options) {
  Communicator& world = mpi.world();
  if (mpi.size() == 1) return std::make_unique<StagedCommunicator>(world, stream);
  if (options.transport == Transport::staged || options.transport == Transport::cuda_aware) {
    return over_mpi(world, stream, options.transport,
                    fmt::format("parallel.transport = {}",
                                options.transport == Transport::staged ? "staged" : "cuda_aware"));
  }
  const auto [shared, why_not] = obstacle(world);
  if (why_not.empty()) {
    log::info("ranks exchange GPU memory over NCCL {}", nccl_world_version());
    return nccl_world(mpi, stream, options);
  }
  if (options.transport == Transport::nccl)
    throw ConfigError("parallel.transport = nccl, but NCCL cannot be used: {}; choose auto", why_not);
  // Ranks that share a GPU are a trial's: what works everywhere is theirs.
  return over_mpi(world, stream, shared ? Transport::staged : Transport::automatic,
                  "not over NCCL: " + why_not);
}

}  // namespace

std::unique_ptr<Communicator> device_communicator(MpiEnvironment& mpi, Stream& stream,
                                                  const TransportOptions& options) {
  return with_calls_compared(over_chosen(mpi, stream, options), options.check);
}

std::string device_communicator_version() {
  return nccl_world_version();
}

}  // namespace red::parallel
