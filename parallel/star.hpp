// A star of TCP connections around rank 0. Made once, at start-up, and may block: rank 0 listens, its
// addresses and two secrets travel over MPI, the others connect and both ends prove that they know the
// secrets.
#pragma once

#include <mpi.h>

#include <memory>
#include <string>
#include <vector>

#include "parallel/socket.hpp"

namespace red::parallel {

struct StarConnection {
  int rank = 0;      ///< of the other end
  std::string host;  ///< of the other end
  FileDescriptor socket;
  std::unique_ptr<MessageReader> reader;  ///< may already hold more than the handshake
};

std::string host_name();

/// Collective over world: on rank 0 the connections to all others, by rank; elsewhere the one to rank 0.
/// Every rank throws CommunicationError when one could not connect within the time.
std::vector<StarConnection> connect_star(MPI_Comm world, double timeout_s);

}  // namespace red::parallel
