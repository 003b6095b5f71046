#include "parallel/device_world.hpp"
#include "parallel/staged_communicator.hpp"

namespace red::test {

std::unique_ptr<parallel::Communicator> make_device_world(parallel::MpiEnvironment& mpi, Stream& stream) {
  return std::make_unique<parallel::StagedCommunicator>(mpi.world(), stream);
}

bool adds_in_order_of_ranks() {
  return true;
}

}  // namespace red::test
