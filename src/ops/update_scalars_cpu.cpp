// Norm, loss and factors of a step from its sums, on the calling thread: an addition for each parameter of
// the model, in their order, bound by its latency; nothing beside a step. Shapes: see update_scalars.hpp.
#include <cmath>

#include "ops/update_scalars.hpp"

namespace red::ops {

void update_scalars(Stream&, const Tensor& scalars, const Tensor& updates, const Tensor& sums,
                    double learning_rate, double decay_exponent, double gradient_clip) {
  const double* sum = sums.as<double>();
  double* out = scalars.as<double>();
  double& count = *updates.as<double>();
  const double targets = sum[sum_targets];
  double squares = 0.0;
  for (int64_t i = kStepSums; i < sums.rows; ++i) squares += sum[i];
  const double norm = std::sqrt(squares) / targets;
  const double loss = sum[sum_loss] / targets;
  const bool apply = std::isfinite(norm) && std::isfinite(loss);
  if (apply) count += 1.0;
  const double clip = gradient_clip > 0.0 && norm > gradient_clip ? gradient_clip / norm : 1.0;
  out[scalar_gradient_scale] = apply ? clip / targets : 0.0;
  out[scalar_decay] = 1.0 - std::pow(std::max(count, 1.0), -decay_exponent);
  out[scalar_learning_rate] = learning_rate;
  out[scalar_apply] = apply ? 1.0 : 0.0;
  out[scalar_gradient_norm] = norm;
  out[scalar_loss] = loss;
  out[scalar_cross_entropy] = sum[sum_cross_entropy] / targets;
  out[scalar_targets] = targets;
  out[scalar_stop] = sum[sum_stop];
}

}  // namespace red::ops
