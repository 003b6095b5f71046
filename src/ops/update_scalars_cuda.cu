// The scalars of a step on a GPU: a warp reads P + 4 numbers and one of its lanes adds them, in their order.
// Nothing to be fast at, and no reason to wake the host.
#include "ops/cuda_reduce.cuh"
#include "ops/cuda_rows.cuh"
#include "ops/update_scalars.hpp"

namespace red::ops {
namespace {

struct UpdateArgs {
  double* out;         // (kStepScalars)
  double* count;       // of updates
  const double* sums;  // (kStepSums + P)
  int64_t num_sums;
  double learning_rate, decay_exponent, gradient_clip;
};

__device__ void write_scalars(const UpdateArgs& a, double squares) {
  const double targets = a.sums[sum_targets];
  const double norm = sqrt(squares) / targets, loss = a.sums[sum_loss] / targets;
  const bool apply = is_finite(norm) && is_finite(loss);
  const double count = *a.count + (apply ? 1.0 : 0.0);
  *a.count = count;
  const double clip = a.gradient_clip > 0.0 && norm > a.gradient_clip ? a.gradient_clip / norm : 1.0;
  a.out[scalar_gradient_scale] = apply ? clip / targets : 0.0;
  a.out[scalar_decay] = 1.0 - pow(count < 1.0 ? 1.0 : count, -a.decay_exponent);
  a.out[scalar_learning_rate] = a.learning_rate;
  a.out[scalar_apply] = apply ? 1.0 : 0.0;
  a.out[scalar_gradient_norm] = norm;
  a.out[scalar_loss] = loss;
  a.out[scalar_cross_entropy] = a.sums[sum_cross_entropy] / targets;
  a.out[scalar_targets] = targets;
  a.out[scalar_stop] = a.sums[sum_stop];
}

__global__ void update_scalars_kernel(UpdateArgs args) {
  double squares = 0.0;
  for (int64_t first = kStepSums; first < args.num_sums; first += kWarp) {
    const int64_t i = first + threadIdx.x;
    const double own = i < args.num_sums ? args.sums[i] : 0.0;
    for (int lane = 0; lane < kWarp; ++lane) squares += __shfl_sync(kWholeWarp, own, lane);
  }
  if (threadIdx.x == 0) write_scalars(args, squares);
}

}  // namespace

void update_scalars(Stream& stream, const Tensor& scalars, const Tensor& updates, const Tensor& sums,
                    double learning_rate, double decay_exponent, double gradient_clip) {
  const UpdateArgs args{scalars.as<double>(), updates.as<double>(), sums.as<double>(), sums.rows,
                        learning_rate,        decay_exponent,       gradient_clip};
  launch(stream, update_scalars_kernel, 1, kWarp, args);
}

}  // namespace red::ops
