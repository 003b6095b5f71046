// Figures that tell a healthy tensor from a ruined one, from one pass over a checkpoint in bounded memory.
#pragma once

#include <cstdint>
#include <limits>

#include "checkpoint/checkpoint.hpp"

namespace red::checkpoint {

/// Of the elements that are numbers; where there are none, rms, min and max are NaN.
struct TensorStatistics {
  int64_t num_elements = 0;
  int64_t num_nan = 0;
  int64_t num_infinite = 0;  ///< counted as numbers too
  double rms = std::numeric_limits<double>::quiet_NaN();
  double min = std::numeric_limits<double>::quiet_NaN();
  double max = std::numeric_limits<double>::quiet_NaN();
};

/// Reads the tensor in blocks of at most 8 MiB. Sums are in float64. Throws what Reader::read throws.
TensorStatistics statistics_of(const Reader& reader, const LogicalTensor& tensor);

}  // namespace red::checkpoint
