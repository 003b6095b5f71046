// Private to ops: how matmul cuts its result. A pure function of the shape, so that the result does not
// depend on the number of threads; k is never cut, because a sum over it must have one order.
#pragma once

#include <algorithm>
#include <cstdint>

namespace red::ops {

struct MatmulTiles {
  int64_t rows, cols;          ///< of one tile; the last ones may be smaller
  int64_t num_rows, num_cols;  ///< tiles along m and n
  int64_t count() const { return num_rows * num_cols; }
};

MatmulTiles matmul_tiles(int64_t m, int64_t n, int64_t k);

}  // namespace red::ops
