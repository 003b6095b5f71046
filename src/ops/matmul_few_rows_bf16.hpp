// Private to ops: sums of matmul_few_rows for bf16, by the processor's own arithmetic.
#pragma once

#include <cstdint>

#include "device/tensor.hpp"

namespace red::ops {

inline constexpr int64_t kFewRowsCols = 256;  ///< the most columns at a time

/// sums (16, kFewRowsCols), at whole 64 bytes, = a op(b) in columns [col, col + cols) of op(b), which come to
/// lie from 0 on. a has at most 16 rows. Whole 64 columns are written, and rows beyond a's perhaps.
/// By AMX: only where GemmLibrary::amx.
void few_rows_sums_by_amx(float* sums, const Tensor& a, const Tensor& b, bool transpose_b, int64_t col,
                          int64_t cols);
/// By AVX512_BF16's dot products of pairs: only where GemmLibrary::has_bf16_arithmetic().
void few_rows_sums_by_pairs(float* sums, const Tensor& a, const Tensor& b, bool transpose_b, int64_t col,
                            int64_t cols);

}  // namespace red::ops
