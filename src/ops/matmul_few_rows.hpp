// Matrix product with a few rows, as generation has: what takes time there is reading the matrix, so it is
// read once, in its order, for all rows. Shapes: a (m, k), op(b) (k, n), c (m, n); any row strides. a and b
// are both fp32 or both bf16, c is either; sums are fp32, bf16 results are rounded once.
#pragma once

#include "device/stream.hpp"
#include "device/tensor.hpp"
#include "ops/matmul.hpp"

namespace red::ops {

/// The most rows.
inline constexpr int64_t kFewRows = 16;

/// More rows than these of bf16, and any number times a transposed matrix, are multiplied as bf16 where the
/// stream's library does; others are widened.
inline constexpr int64_t kFewRowsInFp32 = 6;

/// c = alpha a op(b), whatever was in c, for 1 ... kFewRows rows; n or k may be 0. A row's bits depend on
/// neither the other rows nor the number of threads, but on whether there are enough to multiply them as
/// bf16.
void matmul_few_rows(Stream& stream, const Tensor& c, const Tensor& a, const Tensor& b, Transpose transpose_b,
                     float alpha = 1.0F);

/// What it takes of the stream's scratch memory, at most.
std::size_t few_rows_scratch_bytes(DType dtype);

/// Whether it is faster than matmul() (measured on CPUs: docs/generation.md).
bool few_rows_pay(int64_t rows, DType dtype);

}  // namespace red::ops
