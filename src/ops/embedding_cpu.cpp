// Embedding lookup and its gradient on the CPU, bound by bytes: 2 d elements a token to look up; d of each
// token, and 2 d of its fp32 row, to add up. There a task owns 64 columns of the table and goes over all
// tokens. Shapes: n tokens, d width; x, dx (n, d); ids (n); table (V, d).
#include <cstring>

#include "ops/blocks.hpp"
#include "ops/embedding.hpp"
#include "ops/rows.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/embedding_cpu.cpp"
#include <hwy/foreach_target.h>

#include "ops/simd-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace red::ops {
namespace HWY_NAMESPACE {
namespace {

template <class T>
HWY_ATTR void accumulate_row_of(float* y, const T* x, int64_t n) {
  const FloatTag d;
  for_each_vector(n, [&](auto access, int64_t i) HWY_ATTR {
    access.store(hn::Add(access.load(d, y + i), access.load(d, x + i)), d, y + i);
  });
}

void accumulate_row(float* y, const std::byte* x, DType dtype, int64_t n) {
  with_element(dtype,
               [&](auto e) HWY_ATTR { accumulate_row_of(y, reinterpret_cast<const decltype(e)*>(x), n); });
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace red::ops
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace red::ops {

HWY_EXPORT(accumulate_row);

void embedding_gather(Stream& stream, const Tensor& x, const Tensor& table, const int32_t* ids,
                      int64_t first_row) {
  RED_CHECK(x.cols == table.cols, "x ({}, {}), table ({}, {})", x.rows, x.cols, table.rows, table.cols);
  check_same_dtype(x, table);
  const Blocks blocks(x.rows, x.cols);
  stream.parallel_for(blocks.count(), [&](int64_t i) {
    const Block block = blocks[i];
    const auto num_bytes = static_cast<std::size_t>(block.cols) * size_of(x.dtype);
    for (int64_t row = block.row; row < block.row + block.rows; ++row) {
      std::byte* out = element_at(x, row, block.col);
      const int64_t entry = ids[row] - first_row;
      if (entry < 0 || entry >= table.rows) {
        std::memset(out, 0, num_bytes);
      } else {
        std::memcpy(out, element_at(table, entry, block.col), num_bytes);
      }
    }
  });
}

void embedding_scatter_add(Stream& stream, const Tensor& d_table, const Tensor& dx, const int32_t* ids,
                           int64_t first_row) {
  // Each task owns some columns of the table and sees all tokens in their order: no two threads meet, and no
  // sum depends on which of them came first.
  constexpr int64_t cols_per_task = 64;
  RED_CHECK(dx.cols == d_table.cols, "dx ({}, {}), table ({}, {})", dx.rows, dx.cols, d_table.rows,
            d_table.cols);
  stream.parallel_for((dx.cols + cols_per_task - 1) / cols_per_task, [&](int64_t task) {
    const int64_t col = task * cols_per_task, cols = std::min(cols_per_task, dx.cols - col);
    for (int64_t row = 0; row < dx.rows; ++row) {
      const int64_t entry = ids[row] - first_row;
      if (entry < 0 || entry >= d_table.rows) continue;
      HWY_DYNAMIC_DISPATCH(accumulate_row)
      (d_table.as<float>() + entry * d_table.row_stride + col, element_at(dx, row, col), dx.dtype, cols);
    }
  });
}

}  // namespace red::ops
#endif  // HWY_ONCE
