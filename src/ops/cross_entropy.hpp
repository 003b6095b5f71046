// Cross-entropy with z-loss on a chunk of logits, which make room for their own gradient (model-and-recipe
// "Objective"): sum over targets of CE + z (log Z)^2, not divided by anything: the division by the number of
// targets of the global batch happens once, to the summed gradients (ops/update_scalars). The vocabulary may
// be divided over ranks: each makes partials of its own columns, they are gathered, and each finishes.
// Shapes: n tokens of the chunk, V own columns, of which the first is token `first_column`; logits (n, V)
// fp32; targets, loss_mask (n) in device memory; log_probability (n, 1), optional; sums (2, 1) fp64.
#pragma once

#include <cstdint>

#include "device/stream.hpp"
#include "device/tensor.hpp"

namespace red::ops {

enum class LogitsBecome { gradient, nothing };

/// Of one token's own columns.
struct CrossEntropyPartial {
  double max = 0.0;           ///< largest logit; -inf without columns, NaN if there is one
  double sum = 0.0;           ///< of exp(logit - max)
  double target_logit = 0.0;  ///< 0 where the target's column is another rank's
};
inline constexpr int64_t kCrossEntropyPartialSize = 3;  ///< in fp64

/// partials (1, 3 n) fp64: a CrossEntropyPartial for each token. With LogitsBecome::gradient, logits that
/// count become exp(logit - max).
void cross_entropy_partials(Stream& stream, const Tensor& partials, const Tensor& logits,
                            int64_t first_column, const int32_t* targets, const uint8_t* loss_mask,
                            LogitsBecome become);

/// partials (ranks, 3 n): everyone's; this rank's are row `rank`. For each token: log_probability =
/// log p(target) (masked or not); where loss_mask is not 0: sums[0] += CE + z (log Z)^2 and sums[1] += CE.
/// d_logits (n, V) = d(sums[0])/d(logits), 0 in rows with loss_mask 0, fp32 or bf16 (rounded once): in the
/// logits' place (logits_gradient) or another tensor, after partials with LogitsBecome::gradient; empty: no
/// gradient. Sums are in fp64, in an order that n alone decides (on the CPU that of the tokens), and the same
/// on every rank.
void cross_entropy(Stream& stream, const Tensor& sums, const Tensor& log_probability, const Tensor& d_logits,
                   const Tensor& logits, const Tensor& partials, int64_t rank, int64_t first_column,
                   const int32_t* targets, const uint8_t* loss_mask, float z_loss);

/// The gradient's view of the logits' memory: each row at the beginning of its row of logits.
inline Tensor logits_gradient(const Tensor& logits, DType dtype) {
  const auto narrower = static_cast<int64_t>(size_of(logits.dtype) / size_of(dtype));
  return {logits.data, logits.rows, logits.cols, narrower * logits.row_stride, dtype};
}

/// Bytes that it takes from a stream's scratch memory.
std::size_t cross_entropy_scratch_bytes(int64_t num_tokens);

}  // namespace red::ops
