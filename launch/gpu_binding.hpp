// Where ranks compute: on cores near their GPUs, as far as no launcher has decided otherwise.
#pragma once

#include "parallel/communicator.hpp"

namespace red::launch {

/// Binds this process, and the threads it will start, to the cores of its GPU's NUMA node, where a launcher
/// has bound it to none and the system tells which they are. RED_BIND=off: never. Before any thread is
/// started, as memory follows the cores that touch it first.
void bind_near_gpu();

/// Rank 0 says which rank has which GPU. Collective; nothing on CPUs.
void log_gpus(parallel::Communicator& world);

}  // namespace red::launch
