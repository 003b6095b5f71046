// Products with bf16. Where the library multiplies bf16, it does; elsewhere pieces of the operands become
// fp32 in panels that stay in the cache, and the library adds their products up in fp32. A bf16 result is
// summed in an fp32 block of its own and rounded when it is complete.
#include "ops/convert_row.hpp"
#include "ops/matmul_tiles.hpp"

namespace red::ops {
namespace {

// One block's result and its panels: 2 MiB. Larger blocks convert less often, and leave the L2 cache.
constexpr int64_t kRows = 256, kCols = 512, kDepth = 512;
// Keeps strides from being powers of two: rows fall into different cache sets.
constexpr int64_t kPadding = 16;
constexpr int64_t kSumsSize = kRows * (kCols + kPadding);
constexpr int64_t panel_size(int64_t rows, int64_t cols) {
  return std::max(rows * (cols + kPadding), cols * (rows + kPadding));
}

/// fp32 copies of parts of a matrix.
struct Panel {
  float* data;
  int64_t stride;
};

/// op(t)'s rows and columns `part`, stored as t is.
Panel convert(float* to, const Tensor& t, bool transpose, const Block& part) {
  const int64_t rows = transpose ? part.cols : part.rows, cols = transpose ? part.rows : part.cols;
  const bf16* from = operand<bf16>(t, transpose, part.row, part.col);
  for (int64_t i = 0; i < rows; ++i) convert_row(to + i * (cols + kPadding), from + i * t.row_stride, cols);
  return {to, cols + kPadding};
}

/// multiply_tile for bf16, by an fp32 library.
void multiply_converted(GemmFunction sgemm, const MatmulArgs& args, const Block& block, const Panel& sums,
                        float* scratch) {
  const int64_t k = args.k(), depth = matmul_piece(k, (k + kDepth - 1) / kDepth);
  for (int64_t i = 0; i < k; i += depth) {
    const int64_t count = std::min(depth, k - i);
    const Panel a = convert(scratch, args.a, args.transpose_a, {block.row, i, block.rows, count});
    const Panel b = convert(scratch + panel_size(kRows, kDepth), args.b, args.transpose_b,
                            {i, block.col, count, block.cols});
    sgemm(args.transpose_a, args.transpose_b, block.rows, block.cols, count, args.alpha, a.data, a.stride,
          b.data, b.stride, i == 0 ? args.beta : 1.0F, sums.data, sums.stride);
  }
}

void multiply_any(const GemmLibrary& gemm, const MatmulArgs& args, const Block& block, const Panel& sums,
                  float* scratch) {
  if (args.a.dtype == DType::fp32) {
    multiply_tile(gemm.sgemm, args, block, sums.data, sums.stride);
  } else if (gemm.has_bf16_arithmetic()) {
    multiply_tile(gemm.bf16gemm, args, block, sums.data, sums.stride);
  } else {
    multiply_converted(gemm.sgemm, args, block, sums, scratch);
  }
}

void multiply_block(const GemmLibrary& gemm, const MatmulArgs& args, const Block& block, float* scratch) {
  const Tensor& c = args.c;
  const int64_t first = block.row * c.row_stride + block.col;
  if (c.dtype == DType::fp32) {
    multiply_any(gemm, args, block, {c.as<float>() + first, c.row_stride}, scratch);
    return;
  }
  bf16* result = c.as<bf16>() + first;
  const Panel sums{scratch, block.cols + kPadding};
  if (args.beta != 0.0F) {
    for (int64_t i = 0; i < block.rows; ++i)
      convert_row(sums.data + i * sums.stride, result + i * c.row_stride, block.cols);
  }
  multiply_any(gemm, args, block, sums, scratch + kSumsSize);
  for (int64_t i = 0; i < block.rows; ++i)
    convert_row(result + i * c.row_stride, sums.data + i * sums.stride, block.cols);
}

}  // namespace

const int64_t kBf16TileFloats = kSumsSize + panel_size(kRows, kDepth) + panel_size(kDepth, kCols);

void multiply_bf16_tile(const GemmLibrary& gemm, const MatmulArgs& args, const Block& tile, float* scratch) {
  const int64_t rows = matmul_piece(tile.rows, (tile.rows + kRows - 1) / kRows);
  const int64_t cols = matmul_piece(tile.cols, (tile.cols + kCols - 1) / kCols);
  for (int64_t col = 0; col < tile.cols; col += cols) {
    for (int64_t row = 0; row < tile.rows; row += rows) {
      multiply_block(
          gemm, args,
          {tile.row + row, tile.col + col, std::min(rows, tile.rows - row), std::min(cols, tile.cols - col)},
          scratch);
    }
  }
}

}  // namespace red::ops
