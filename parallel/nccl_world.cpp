#include "parallel/nccl_world.hpp"

#include "parallel/nccl_communicator.hpp"

namespace red::parallel {

std::string nccl_world_version() {
  return nccl_version();
}

std::unique_ptr<Communicator> nccl_world(MpiEnvironment& mpi, Stream& stream,
                                         const TransportOptions& options) {
  return std::make_unique<NcclCommunicator>(mpi.world(), mpi.context(), stream, NcclOptions{options.overlap});
}

}  // namespace red::parallel
