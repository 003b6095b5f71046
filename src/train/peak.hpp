// What a step's arithmetic rate is a share of: what the ranks multiply at, measured, and what NVIDIA states
// of their GPUs.
#pragma once

#include <string>

#include "device/stream.hpp"
#include "parallel/communicator.hpp"

namespace red::train {

struct Peak {
  double measured_gflops = 0.0;  ///< of all ranks at the same time
  double stated_gflops = 0.0;    ///< dense, of all their GPUs; 0: not of each is anything stated
  std::string why_not_stated;    ///< on a GPU, then
};

/// In this dtype, with the stream's way to multiply. A GPU that several ranks share counts once. Collective;
/// the rates are the same on every rank.
Peak find_peak(parallel::Communicator& world, Stream& stream, DType dtype);

}  // namespace red::train
