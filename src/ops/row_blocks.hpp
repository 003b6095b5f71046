// Splits the rows of a memory-bound pass into tasks: long enough that taking one costs nothing, short enough
// that threads end together and communication is polled often.
#pragma once

#include <algorithm>
#include <cstdint>

#include "device/stream.hpp"

namespace red::ops {

/// body(begin, end) over blocks of rows, in parallel. Blocks hold about 16,384 elements of `cols` columns.
template <class Body>
void for_row_blocks(Stream& stream, int64_t rows, int64_t cols, const Body& body) {
  const int64_t block = std::max<int64_t>(1, 16384 / std::max<int64_t>(1, cols));
  stream.parallel_for((rows + block - 1) / block,
                      [&](int64_t i) { body(i * block, std::min(rows, (i + 1) * block)); });
}

}  // namespace red::ops
