// The learning rate of a step (model-and-recipe "Recipe"): linear warm-up from 0 to the peak, then a cosine
// down to a fraction of it at the last step, or a constant.
#pragma once

#include "optim/optimizer_config.hpp"

namespace red::optim {

/// Rate of step t, counted from 1. Beyond total_steps the cosine stays at its end.
double learning_rate(const ScheduleConfig& config, int64_t t);

}  // namespace red::optim
