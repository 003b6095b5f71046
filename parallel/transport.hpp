// How ranks exchange their tensors, as the keys parallel.transport and its neighbours say it.
#pragma once

namespace red::parallel {

/// automatic: NCCL where every rank has a GPU of its own; in a program without NCCL then over MPI, which is
/// given GPU memory where it says that it can take it; staged where ranks share a GPU. nccl, cuda_aware: that
/// or an error. staged: over MPI, all through host memory (parallel/staged_communicator).
enum class Transport { automatic, nccl, cuda_aware, staged };

/// Whether all ranks' operations are compared once a step (parallel/checked_communicator). automatic: in
/// Debug builds.
enum class CallCheck { automatic, yes, no };

struct TransportOptions {
  Transport transport = Transport::automatic;
  CallCheck check = CallCheck::automatic;  ///< key parallel.check_collectives
  bool shared_memory = true;  ///< of host memory between ranks of one machine; key parallel.shared_memory
  bool overlap = true;        ///< of computation with collectives; key parallel.overlap
};

}  // namespace red::parallel
