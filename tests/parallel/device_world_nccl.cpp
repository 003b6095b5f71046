#include "parallel/device_world.hpp"
#include "parallel/nccl_communicator.hpp"

namespace red::test {

std::unique_ptr<parallel::Communicator> make_device_world(parallel::MpiEnvironment& mpi, Stream& stream) {
  return std::make_unique<parallel::NcclCommunicator>(mpi.world(), mpi.context(), stream,
                                                      parallel::NcclOptions());
}

bool adds_in_order_of_ranks() {
  return false;
}

}  // namespace red::test
