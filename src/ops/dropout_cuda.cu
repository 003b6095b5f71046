// Dropout on a GPU. A thread makes one Philox block, which decides 4 columns 16 apart: 16 neighbouring
// threads read and write 16 neighbouring elements four times. Bound by bytes, 2 c elements a row, with about
// 25 integer operations each. Shapes: n rows, c columns; see dropout.hpp.
#include "ops/blocks.hpp"
#include "ops/cuda_rows.cuh"
#include "ops/dropout.hpp"

namespace red::ops {
namespace {

constexpr int64_t kGroup = 64, kBlocks = 16;  // columns, and Philox blocks, that belong together

template <class T>
__global__ void dropout_kernel(RowsOf<T> y, RowsOf<const T> x, int64_t rows, int64_t cols,
                               const uint64_t* row_keys, int64_t first_column, Dropout dropout) {
  const auto threshold = static_cast<uint32_t>(dropout.rate * 0x1.0p31F);
  const float kept = 1.0F / (1.0F - dropout.rate);
  const int64_t first_block = first_column / kGroup * kBlocks;
  const int64_t num_blocks = (first_column + cols + kGroup - 1) / kGroup * kBlocks - first_block;
  for_each_element<1>(rows, num_blocks, [&](auto, int64_t row, int64_t i) {
    const int64_t block = first_block + i;
    const PhiloxBlock words = philox(dropout.key, row_keys[row], static_cast<uint64_t>(block));
#pragma unroll
    for (int w = 0; w < 4; ++w) {
      const int64_t col = block / kBlocks * kGroup + w * kBlocks + block % kBlocks - first_column;
      if (col < 0 || col >= cols) continue;
      // Not a product where an element is dropped: infinity times zero would be no number.
      const float value = words[w] >> 1 >= threshold ? static_cast<float>(x(row, col)) * kept : 0.0F;
      y(row, col) = rounded_to<T>(value);
    }
  });
}

}  // namespace

void dropout(Stream& stream, const Tensor& y, const Tensor& x, const uint64_t* row_keys, int64_t first_column,
             const Dropout& dropout) {
  check_same_shape(y, x);
  RED_CHECK(dropout.rate >= 0.0F && dropout.rate < 1.0F, "rate {}", dropout.rate);
  RED_CHECK(first_column >= 0, "first column {}", first_column);
  check_same_dtype(x, y);
  const auto run = [&](auto element) {
    using T = decltype(element);
    const int64_t end = pieces(first_column + x.cols, kGroup);
    const auto [grid, block] = grid_over(x.rows, (end - first_column / kGroup) * kBlocks, 1);
    launch(stream, dropout_kernel<T>, grid, block, RowsOf<T>(y), RowsOf<const T>(x), x.rows, x.cols, row_keys,
           first_column, dropout);
  };
  with_element(x.dtype, run);
}

}  // namespace red::ops
