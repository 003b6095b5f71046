#include "parallel/device_communicator.hpp"
#include "parallel/device_world.hpp"

namespace red::test {

std::unique_ptr<parallel::Communicator> make_device_world(parallel::MpiEnvironment& mpi, Stream& stream) {
  return parallel::device_communicator(mpi, stream, {parallel::Transport::cuda_aware});
}

bool adds_in_order_of_ranks() {
  return true;
}

}  // namespace red::test
