// The few numbers that decide an optimizer step, computed where the gradients are: nothing waits for the
// host, and the step is called off on the device when a gradient or the loss is not finite.
#pragma once

#include "device/stream.hpp"
#include "device/tensor.hpp"

namespace red::ops {

/// What all ranks summed up, fp64 (kStepSums + P, 1) for P logical parameters: these, then the squared
/// gradients of each parameter. Adding those up in the order of the parameters makes the norm independent of
/// which rank holds which layer.
enum StepSum {
  sum_loss = 0,
  sum_cross_entropy,
  sum_targets,
  sum_stop,  ///< ranks that were asked to stop
  kStepSums
};

/// fp64 (kStepScalars, 1), at these places.
enum StepScalar {
  scalar_gradient_scale = 0,  ///< clip factor / targets
  scalar_decay,               ///< b = 1 - t^-decay, t the number of this update
  scalar_learning_rate,
  scalar_apply,          ///< 1: everything is finite; 0: leave parameters and state alone
  scalar_gradient_norm,  ///< of the mean gradient, before clipping
  scalar_loss,           ///< per target, z-loss included
  scalar_cross_entropy,  ///< per target
  scalar_targets,
  scalar_stop,  ///< ranks that were asked to stop
  kStepScalars
};

/// scalars from sums. `updates` (1, 1) fp64 counts applied updates and grows by one when this one is.
/// gradient_clip: largest global norm, 0 for none.
void update_scalars(Stream& stream, const Tensor& scalars, const Tensor& updates, const Tensor& sums,
                    double learning_rate, double decay_exponent, double gradient_clip);

}  // namespace red::ops
