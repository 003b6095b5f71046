// What the environment chooses about a run on the CPU. Each order is one that CUDA allows; a program must
// give the same results in all of them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace cuda_on_cpu {

/// natural: by index, each until it waits. reversed: the last that can run. warp: one warp runs ahead of the
/// others as far as it can, in an order of warps that is new in each block. Blocks run in the same order, or
/// last to first.
enum class ThreadOrder { natural, reversed, warp };

/// lazy: nothing runs before somebody waits for it or asks for it often. eager: everything at once. random:
/// any operation that may run.
enum class StreamOrder { lazy, random, eager };

/// Whether cuBLASLt's algorithms for one shape add in different orders, as the real ones do.
enum class AlgorithmSums { equal, differ };

struct Options {
  ThreadOrder threads = ThreadOrder::natural;       ///< CUDA_ON_CPU_THREADS
  StreamOrder streams = StreamOrder::lazy;          ///< CUDA_ON_CPU_STREAMS
  AlgorithmSums algorithms = AlgorithmSums::equal;  ///< CUDA_ON_CPU_ALGORITHMS
  /// CUDA_ON_CPU_FASTEST: number of cuBLASLt's algorithm that takes no time; -1: as it comes
  int fastest = -1;
  uint64_t seed = 1;                                ///< CUDA_ON_CPU_SEED, of what is random above
  int num_devices = 1;                              ///< CUDA_ON_CPU_DEVICES; 0: a machine without a GPU
  bool divided = false;                             ///< CUDA_ON_CPU_MIG=1: they are instances of one GPU
  std::size_t memory_bytes = std::size_t{8} << 30;  ///< CUDA_ON_CPU_MEMORY, of the device
  std::string device_name = "CPU in the place of a GPU";  ///< CUDA_ON_CPU_NAME
  int stuck_s =
      60;  ///< CUDA_ON_CPU_STUCK: seconds without another process, where a wait cannot be called off
};

/// Read from the environment once; a value that is not known ends the program. Tests may change them between
/// launches.
Options& options();

}  // namespace cuda_on_cpu
