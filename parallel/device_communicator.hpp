// How ranks exchange what lies in device memory. The linked backend chooses; nothing else knows of the
// choice.
#pragma once

#include <memory>
#include <string>

#include "device/stream.hpp"
#include "parallel/mpi_environment.hpp"
#include "parallel/transport.hpp"

namespace red::parallel {

/// All ranks' communicator, over mpi.world(), for tensors in host and in device memory alike. Both arguments
/// must outlive it. Collective. Throws ConfigError on every rank where the transport cannot be had; a line in
/// the log says which one it is.
std::unique_ptr<Communicator> device_communicator(MpiEnvironment& mpi, Stream& stream,
                                                  const TransportOptions& options);

/// Of NCCL, whether ranks use it or not; empty in a program without it.
std::string device_communicator_version();

}  // namespace red::parallel
