// Keys or values of new tokens into a cache, on the CPU: each head's k elements are copied to a row of their
// own, 2 h k elements a token. Bound by bytes. Shapes: see scatter_heads.hpp.
#include <cstring>

#include "ops/row_blocks.hpp"
#include "ops/rows.hpp"
#include "ops/scatter_heads.hpp"

namespace red::ops {

void scatter_heads(Stream& stream, const Tensor& cache, const Tensor& x, const int32_t* rows,
                   int64_t num_heads, int64_t head_rows) {
  RED_CHECK(num_heads > 0 && head_rows >= 0 && x.cols == num_heads * cache.cols,
            "({}, {}) into rows of {} by {} heads {} rows apart", x.rows, x.cols, cache.cols, num_heads,
            head_rows);
  check_same_dtype(cache, x);
  const int64_t k = cache.cols, last_head = (num_heads - 1) * head_rows;
  const std::size_t num_bytes = static_cast<std::size_t>(k) * size_of(x.dtype);
  for (int64_t t = 0; t < x.rows; ++t) {
    RED_CHECK(rows[t] >= 0 && rows[t] + last_head < cache.rows, "token {}: row {} of {}, {} heads", t,
              rows[t], cache.rows, num_heads);
  }
  for_row_blocks(stream, x.rows, x.cols, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      for (int64_t head = 0; head < num_heads; ++head)
        std::memcpy(element_at(cache, rows[t] + head * head_rows, 0), element_at(x, t, head * k), num_bytes);
    }
  });
}

}  // namespace red::ops
