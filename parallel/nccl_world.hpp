// Private to the CUDA backend: NCCL, where the program was built with it.
#pragma once

#include <memory>
#include <string>

#include "parallel/device_communicator.hpp"

namespace red::parallel {

/// Empty in a program without NCCL.
std::string nccl_world_version();

/// All ranks' communicator (parallel/nccl_communicator); not in a program without NCCL.
std::unique_ptr<Communicator> nccl_world(MpiEnvironment& mpi, Stream& stream,
                                         const TransportOptions& options);

}  // namespace red::parallel
