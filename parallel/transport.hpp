// How ranks exchange what lies in GPU memory, as the keys parallel.transport and its neighbours say it.
#pragma once

namespace red::parallel {

/// automatic: NCCL where every rank has a GPU of its own, and staged elsewhere. nccl: that or an error.
/// staged: over MPI, through host memory (parallel/staged_communicator).
enum class Transport { automatic, nccl, staged };

struct TransportOptions {
  Transport transport = Transport::automatic;
  bool check_order = false;  ///< of NCCL's collectives, between ranks; key parallel.check_collectives
  bool overlap = true;       ///< of computation with collectives; key parallel.overlap
};

}  // namespace red::parallel
