#include <cstring>

#include "ops/blocks.hpp"
#include "ops/embedding.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/embedding_cpu.cpp"
#include <hwy/foreach_target.h>

#include "ops/simd-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace red::ops {
namespace HWY_NAMESPACE {
namespace {

void accumulate_row(float* y, const float* x, int64_t n) {
  const FloatTag d;
  for_each_vector(n, [&](auto access, int64_t i) HWY_ATTR {
    access.store(hn::Add(access.load(d, y + i), access.load(d, x + i)), d, y + i);
  });
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
  const Blocks blocks(x.rows, x.cols);
  stream.parallel_for(blocks.count(), [&](int64_t i) {
    const Block block = blocks[i];
    for (int64_t row = block.row; row < block.row + block.rows; ++row) {
      float* out = x.as<float>() + row * x.row_stride + block.col;
      const int64_t entry = ids[row] - first_row;
      if (entry < 0 || entry >= table.rows) {
        std::fill_n(out, block.cols, 0.0F);
        continue;
      }
      std::memcpy(out, table.as<float>() + entry * table.row_stride + block.col,
                  static_cast<std::size_t>(block.cols) * sizeof(float));
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
      (d_table.as<float>() + entry * d_table.row_stride + col, dx.as<float>() + row * dx.row_stride + col,
       cols);
    }
  });
}

}  // namespace red::ops
#endif  // HWY_ONCE
