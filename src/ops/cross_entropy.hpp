// Cross-entropy with z-loss on a chunk of logits, which become their own gradient in place (model-and-recipe
// "Objective"): sum over targets of CE + z (log Z)^2, not divided by anything: the division by the number of
// targets of the global batch happens once, to the summed gradients (optim/grad_scale). Shapes: n tokens of
// the chunk, V vocabulary; logits (n, V); targets, loss_mask (n) in device memory; log_probability (n, 1),
// optional; sums (2, 1) fp64.
#pragma once

#include <cstdint>

#include "device/stream.hpp"
#include "device/tensor.hpp"

namespace red::ops {

enum class LogitsBecome { gradient, nothing };

/// For each token: log_probability = log p(target) (for every token, masked or not); where loss_mask is not
/// 0: sums[0] += CE + z (log Z)^2 and sums[1] += CE. With LogitsBecome::gradient, logits are overwritten with
/// d(sums[0])/d(logits); rows with loss_mask 0 become 0. All in fp32, sums in fp64, in the order of the
/// tokens.
void cross_entropy(Stream& stream, const Tensor& sums, const Tensor& log_probability, const Tensor& logits,
                   const int32_t* targets, const uint8_t* loss_mask, float z_loss, LogitsBecome become);

}  // namespace red::ops
