// The two passes of Adafactor over one shard of one logical parameter (model-and-recipe "Recipe"; T5X's rule
// without momentum and weight decay). What a shard cannot know - sums over the whole parameter - is reduced
// by the caller between the passes. Shapes: p, g, v (r, c) rows of a shard, any row strides; scalars (1, 1)
// in device memory.
#pragma once

#include "device/stream.hpp"
#include "device/tensor.hpp"

namespace red::ops {

/// Values of a step that every parameter shares; fp64 device scalars, so that the host never waits for them.
struct AdafactorScalars {
  Tensor grad_scale;     ///< g is multiplied by this: clip factor / targets of the global batch
  Tensor decay;          ///< b = 1 - t^-0.8
  Tensor learning_rate;  ///< of this step
  Tensor apply;          ///< 0: leave p and v as they are (a step with NaN or Inf)
};

struct AdafactorRule {
  double epsilon1 = 1e-30;      ///< added to g^2
  double epsilon2 = 1e-3;       ///< least RMS(p) in the step size
  double clip_threshold = 1.0;  ///< of RMS(u)
};

/// Unfactored, first pass: v <- b v + (1-b)(g^2 + eps1); sum_u2 += sum (g^2 / v); sum_p2 += sum p^2 (fp64
/// scalars).
void adafactor_accumulate(Stream& stream, const Tensor& v, const Tensor& g, const Tensor& p,
                          const Tensor& sum_u2, const Tensor& sum_p2, const AdafactorScalars& scalars,
                          const AdafactorRule& rule);

/// Unfactored, second pass: u = g / sqrt(v), p <- p - lr max(RMS(p), eps2) u / max(1, RMS(u) / threshold),
/// with RMS(u)^2 = sum_u2 / num_elements and RMS(p)^2 = sum_p2 / num_elements of the whole parameter.
void adafactor_apply(Stream& stream, const Tensor& p, const Tensor& g, const Tensor& v, const Tensor& sum_u2,
                     const Tensor& sum_p2, int64_t num_elements, const AdafactorScalars& scalars,
                     const AdafactorRule& rule);

/// Factored, sums: row_sum (r, 1) = sum over columns of g^2 + eps1; col_sum (c, 1) += sum over these rows;
/// fp64.
void adafactor_factored_sums(Stream& stream, const Tensor& row_sum, const Tensor& col_sum, const Tensor& g,
                             const AdafactorScalars& scalars, const AdafactorRule& rule);

/// Factored, statistics: stat <- b stat + (1-b) sum / count, fp32 (n, 1) from fp64 (n, 1); total += sum of
/// stat.
void adafactor_factored_update(Stream& stream, const Tensor& stat, const Tensor& sum, int64_t count,
                               const Tensor& total, const AdafactorScalars& scalars);

/// Factored, RMS: sum_u2 += sum u^2 with u = g (v_row / mean(v_row))^-1/2 v_col^-1/2; sum_p2 += sum p^2.
/// v_row (r, 1) are the shard's rows, v_col (c, 1) all columns; mean(v_row) = row_total / num_rows.
void adafactor_factored_accumulate(Stream& stream, const Tensor& g, const Tensor& p, const Tensor& v_row,
                                   const Tensor& v_col, const Tensor& row_total, int64_t num_rows,
                                   const Tensor& sum_u2, const Tensor& sum_p2,
                                   const AdafactorScalars& scalars);

/// Bytes that these passes take at most from a stream's scratch memory for a shard of (r, c).
std::size_t adafactor_scratch_bytes(int64_t rows, int64_t cols);
std::size_t adafactor_factored_scratch_bytes(int64_t rows, int64_t cols);

/// Factored, the step itself, as adafactor_apply.
void adafactor_factored_apply(Stream& stream, const Tensor& p, const Tensor& g, const Tensor& v_row,
                              const Tensor& v_col, const Tensor& row_total, int64_t num_rows,
                              const Tensor& sum_u2, const Tensor& sum_p2, int64_t num_elements,
                              const AdafactorScalars& scalars, const AdafactorRule& rule);

}  // namespace red::ops
