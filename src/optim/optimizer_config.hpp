// Adafactor and the learning rate: sections [optimizer] and [schedule] (model-and-recipe "Recipe"); and how
// gradients travel.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/dtype.hpp"

namespace red::optim {

struct AdafactorConfig {
  bool factored = false;            ///< the recipe: unfactored second moments
  int64_t min_dim_to_factor = 128;  ///< both dims must be at least this
  double decay = 0.8;               ///< b = 1 - t^-decay
  double clip_threshold = 1.0;      ///< of RMS(u)
  double epsilon1 = 1e-30;
  double epsilon2 = 1e-3;
  double gradient_clip = 1.0;  ///< global norm; 0: none
};

/// Gradients are summed over the data ranks, and updated rows gathered, in buckets of many parameters.
struct BucketOptions {
  std::size_t num_bytes = std::size_t{32} << 20;  ///< of a bucket's gradients as fp32
  DType gradient_dtype = DType::fp32;             ///< fp32 or bf16; bf16 is added in fp32 and rounded once
  bool overlap = true;                            ///< false: each is waited for as soon as it has begun
};

enum class ScheduleKind { cosine, constant };

struct ScheduleConfig {
  ScheduleKind kind = ScheduleKind::cosine;
  double peak = 0.01;           ///< constant: the rate itself
  int64_t warmup_steps = 2000;  ///< linear from 0
  int64_t total_steps = 0;      ///< cosine ends here; 0: train.steps
  double final_fraction = 0.1;  ///< of the peak, at total_steps
};

}  // namespace red::optim
