// On the CPU device memory is host memory, so nothing is ever staged.
#include "parallel/checked_communicator.hpp"
#include "parallel/device_communicator.hpp"
#include "parallel/staged_communicator.hpp"

namespace red::parallel {

std::unique_ptr<Communicator> device_communicator(MpiEnvironment& mpi, Stream& stream,
                                                  const TransportOptions& options) {
  const char* refused = options.transport == Transport::nccl         ? "nccl"
                        : options.transport == Transport::cuda_aware ? "cuda_aware"
                                                                     : nullptr;
  if (refused != nullptr) {
    throw ConfigError(
        "parallel.transport = {}: this program computes on CPUs, whose memory MPI reaches; choose auto, or "
        "redllm-cuda",
        refused);
  }
  return with_calls_compared(std::make_unique<StagedCommunicator>(mpi.world(), stream), options.check);
}

std::string device_communicator_version() {
  return "";
}

}  // namespace red::parallel
