#include "optim/learning_rate.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace red::optim {

double learning_rate(const ScheduleConfig& config, int64_t t) {
  if (t <= config.warmup_steps)
    return config.peak * static_cast<double>(t) / static_cast<double>(config.warmup_steps);
  if (config.kind == ScheduleKind::constant) return config.peak;
  const auto span = static_cast<double>(std::max<int64_t>(1, config.total_steps - config.warmup_steps));
  const double x = std::min(1.0, static_cast<double>(t - config.warmup_steps) / span);
  const double cosine = 0.5 * (1.0 + std::cos(std::numbers::pi * x));
  return config.peak * (config.final_fraction + (1.0 - config.final_fraction) * cosine);
}

}  // namespace red::optim
