// Private to Adafactor on a GPU: what its two forms share.
#pragma once

#include "ops/adafactor.hpp"
#include "ops/blocks.hpp"
#include "ops/cuda_partials.cuh"
#include "ops/cuda_rows.cuh"

namespace red::ops {

/// What the size of a step is made of; all scalars in device memory.
struct StepSizeArgs {
  StepSizeArgs(const Tensor& u2, const Tensor& p2, int64_t count, const AdafactorScalars& scalars,
               const AdafactorRule& rule)
      : sum_u2(u2.as<double>()),
        sum_p2(p2.as<double>()),
        learning_rate(scalars.learning_rate.as<double>()),
        num_elements(static_cast<double>(count)),
        epsilon2(rule.epsilon2),
        clip_threshold(rule.clip_threshold) {}

  /// lr max(RMS(p), eps2) / max(1, RMS(u) / threshold): what u is multiplied with.
  __device__ float value() const {
    const double rms_u = sqrt(*sum_u2 / num_elements), rms_p = sqrt(*sum_p2 / num_elements);
    return static_cast<float>(*learning_rate * fmax(rms_p, epsilon2) / fmax(1.0, rms_u / clip_threshold));
  }

  const double *sum_u2, *sum_p2, *learning_rate;
  double num_elements, epsilon2, clip_threshold;
};

/// The same value for all threads of a block, computed by one.
__device__ inline float shared_step_size(const StepSizeArgs& args) {
  __shared__ float size;
  if (threadIdx.x == 0) size = args.value();
  __syncthreads();
  return size;
}

/// body(Lanes<n>()) with 4 fp32 at a time where all of `tensors` allow it.
template <class Body, class... Tensors>
void with_float_lanes(const Body& body, const Tensors&... tensors) {
  in_vectors(4, tensors...) ? body(Lanes<4>()) : body(Lanes<1>());
}

}  // namespace red::ops
