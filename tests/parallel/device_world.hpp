// Which communicator for device memory a test is about: chosen by what it is linked with.
#pragma once

#include <memory>

#include "device/stream.hpp"
#include "parallel/mpi_environment.hpp"

namespace red::test {

std::unique_ptr<parallel::Communicator> make_device_world(parallel::MpiEnvironment& mpi, Stream& stream);

/// Whether it adds in the order of ranks, as the host's does.
bool adds_in_order_of_ranks();

}  // namespace red::test
