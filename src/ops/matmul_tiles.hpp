// Private to ops: how matmul cuts its result. A pure function of the shape, so that the result does not
// depend on the number of threads; a sum over k has one order.
#pragma once

#include <algorithm>
#include <cstdint>

#include "device/stream.hpp"
#include "device/tensor.hpp"
#include "ops/blocks.hpp"

namespace red::ops {

struct MatmulTiles {
  int64_t rows, cols;          ///< of one tile; the last ones may be smaller
  int64_t num_rows, num_cols;  ///< tiles along m and n
  int64_t count() const { return num_rows * num_cols; }
};

MatmulTiles matmul_tiles(int64_t m, int64_t n, int64_t k, bool bf16_arithmetic);

/// The size of `num` near-equal pieces of n: whole vectors, so that no piece but the last has a ragged edge.
constexpr int64_t matmul_piece(int64_t n, int64_t num) {
  return ((n + num - 1) / num + 31) / 32 * 32;
}

/// c (m, n) = alpha op(a) (m, k) op(b) (k, n) + beta c
struct MatmulArgs {
  const Tensor &c, &a, &b;
  bool transpose_a, transpose_b;
  float alpha, beta;

  int64_t k() const { return transpose_a ? a.rows : a.cols; }
};

/// Element (row, col) of op(t).
template <class T>
const T* operand(const Tensor& t, bool transpose, int64_t row, int64_t col) {
  return t.as<T>() + (transpose ? col * t.row_stride + row : row * t.row_stride + col);
}

/// sums (tile), rows ldc apart, = alpha op(a) op(b) + beta sums, of this tile of c.
template <class T, class C>
void multiply_tile(void (*gemm)(bool, bool, int64_t, int64_t, int64_t, float, const T*, int64_t, const T*,
                                int64_t, float, C*, int64_t),
                   const MatmulArgs& args, const Block& tile, C* sums, int64_t ldc) {
  gemm(args.transpose_a, args.transpose_b, tile.rows, tile.cols, args.k(), args.alpha,
       operand<T>(args.a, args.transpose_a, tile.row, 0), args.a.row_stride,
       operand<T>(args.b, args.transpose_b, 0, tile.col), args.b.row_stride, args.beta, sums, ldc);
}

/// A tile of any product that has bf16 somewhere. scratch: kBf16TileFloats of the calling task.
void multiply_bf16_tile(const GemmLibrary& gemm, const MatmulArgs& args, const Block& tile, float* scratch);
extern const int64_t kBf16TileFloats;

}  // namespace red::ops
