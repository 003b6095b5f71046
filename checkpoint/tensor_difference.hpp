// How far a tensor of one checkpoint is from that of another, from one pass over both in bounded memory.
#pragma once

#include <cstdint>

#include "checkpoint/checkpoint.hpp"

namespace red::checkpoint {

/// Two elements are equal when their bits are, as for the digest: 0 and -0 are not, nor NaN of other bits.
struct TensorDifference {
  int64_t num_elements = 0;
  int64_t num_different = 0;
  int64_t num_nan = 0;    ///< elements that are NaN in one of them only
  double largest = 0.0;   ///< of |a - b|, where neither is NaN
  double relative = 0.0;  ///< RMS of a - b by that of a, where neither is NaN; where a is 0, that of a - b
};

/// The tensor must have one shape and dtype in both. Throws what Reader::read throws.
TensorDifference difference_of(const Reader& a, const Reader& b, const LogicalTensor& tensor);

}  // namespace red::checkpoint
