// Metrics of a step for tests of what is written.
#pragma once

#include "train/metrics.hpp"

namespace red::test {

/// Every value another, and exact in fp32.
inline train::StepMetrics step_metrics(int64_t step) {
  train::StepMetrics m;
  m.step = step;
  m.result.loss = 3.5;
  m.result.cross_entropy = 3.25;
  m.result.gradient_norm = 1.75;
  m.result.targets = 640;
  m.wall_time = 1.7e9 + static_cast<double>(step);
  m.learning_rate = 0.0078125;
  m.step_s = 0.5;
  m.tokens_per_s = 4096.0;
  m.model_gflops_per_s = 96.5;
  m.peak_share = 0.375;
  m.mfu = 0.4375;
  m.gpu = train::GpuMetrics{1980.0, 2619.0, 61.5, 412.25, 700.0, 2, 3, 1};
  m.peak_rss_mib = 80.25;
  m.peak_device_mib = 60.5;
  m.first_sample = 160;
  m.sample_digest = 0xABCDEF;
  for (std::size_t i = 0; i < train::kPhaseNames.size(); ++i)
    m.phase_s.push_back(0.0625 * static_cast<double>(i));
  return m;
}

}  // namespace red::test
