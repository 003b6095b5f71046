// What is known about one step of a run, and its form in JSON. Where it is written to: metrics_file,
// event_file; by whom: metrics_writer. docs/metrics.md describes every value.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "train/engine.hpp"
#include "train/sample_list.hpp"

namespace red::train {

/// Of one source's held-out windows, in nats per target.
struct ValidationLoss {
  std::string source;
  int64_t windows = 0;
  int64_t targets = 0;            ///< that `loss` is the mean of
  double loss = 0.0;              ///< all targets: what training's cross_entropy is for its own samples
  double second_half_loss = 0.0;  ///< targets in their window's second half: the same for a RedLLM
};

/// A rank that holds the others up (train/straggler_watch).
struct SlowRank {
  int rank = 0;
  std::string host;
  std::string phase;        ///< where most of the difference is: one of kOwnPhaseNames
  double own_s = 0.0;       ///< seconds a step that it spends on itself
  double expected_s = 0.0;  ///< what its peers need, or it did before
};

/// What the GPUs' sensors say after a step (device/gpu_sensors), over all ranks that have them.
struct GpuMetrics {
  double sm_mhz = 0.0, memory_mhz = 0.0;  ///< of the slowest
  double temperature_c = 0.0;             ///< of the hottest
  double power_w = 0.0;                   ///< of the one that draws most
  double power_limit_w = 0.0;             ///< of the one that may draw least
  int64_t slowed_ranks = 0;               ///< whose GPU heat or a power brake holds back
  int64_t ecc_errors = 0;                 ///< not corrected, of all, since their drivers were loaded
  int64_t lost_ranks = 0;                 ///< whose GPU does not answer any more: the run ends
};

struct StepMetrics {
  int64_t step = 0;  ///< counted from 1
  StepResult result;
  double wall_time = 0.0;  ///< at the step's end, seconds since 1970
  double learning_rate = 0.0;
  double step_s = 0.0;                 ///< wall time
  double tokens_per_s = 0.0;           ///< encoder and decoder tokens of the global batch
  double model_gflops_per_s = 0.0;     ///< of all ranks (docs/flops.md)
  double peak_share = 0.0;             ///< of the measured peak of all ranks; 0: not measured
  double mfu = 0.0;                    ///< of what NVIDIA states of all ranks' GPUs; 0: nothing is stated
  double peak_rss_mib = 0.0;           ///< largest of all ranks
  double peak_device_mib = 0.0;        ///< buffers of device memory, largest of all ranks
  std::optional<GpuMetrics> gpu;       ///< where a rank has sensors
  std::vector<std::string> gpu_names;  ///< kinds of GPU in the run, each once
  uint64_t first_sample = 0;
  uint64_t sample_digest = 0;
  std::vector<double> phase_s;             ///< slowest rank, in the order of kPhaseNames
  std::vector<ValidationLoss> validation;  ///< by source; empty: not a step of validation
  double validation_s = 0.0;               ///< wall time, beside step_s
  std::vector<SlowRank> stragglers;        ///< by rank; as of the last window of steps
  std::vector<double> rank_own_s;          ///< by rank, on the first record behind a window; else empty
  SampleList skipped_samples;              ///< all that the step had, where it was not applied
};

/// visit(group, name, value) for every number that is one curve of a run; value is an int64_t, a double, or
/// an optional double where a step may lack it. Both written forms are made of these, so that they agree.
template <class Visit>
void visit_scalars(const StepMetrics& m, Visit&& visit) {
  visit("train", "loss", m.result.loss);
  visit("train", "cross_entropy", m.result.cross_entropy);
  visit("train", "gradient_norm", m.result.gradient_norm);
  visit("train", "learning_rate", m.learning_rate);
  visit("train", "applied", int64_t{m.result.applied});
  visit("train", "targets", m.result.targets);
  visit("speed", "step_s", m.step_s);
  visit("speed", "tokens_per_s", m.tokens_per_s);
  visit("speed", "model_gflops_per_s", m.model_gflops_per_s);
  visit("speed", "peak_share", m.peak_share > 0.0 ? std::optional(m.peak_share) : std::nullopt);
  visit("speed", "mfu", m.mfu > 0.0 ? std::optional(m.mfu) : std::nullopt);
  visit("memory", "peak_rss_mib", m.peak_rss_mib);
  visit("memory", "peak_device_mib", m.peak_device_mib);
  if (!m.gpu) return;
  visit("gpu", "gpu_sm_mhz", m.gpu->sm_mhz);
  visit("gpu", "gpu_memory_mhz", m.gpu->memory_mhz);
  visit("gpu", "gpu_temperature_c", m.gpu->temperature_c);
  visit("gpu", "gpu_power_w", m.gpu->power_w);
  visit("gpu", "gpu_power_limit_w", m.gpu->power_limit_w);
  visit("gpu", "gpu_slowed_ranks", m.gpu->slowed_ranks);
  visit("gpu", "gpu_ecc_errors", m.gpu->ecc_errors);
  visit("gpu", "gpu_lost_ranks", m.gpu->lost_ranks);
}

/// One line, without the line break. Numbers that are not finite, or that the step lacks, become null.
std::string to_json(const StepMetrics& metrics);

/// A place that metrics go to.
class MetricsSink {
 public:
  MetricsSink() = default;
  MetricsSink(const MetricsSink&) = delete;
  MetricsSink& operator=(const MetricsSink&) = delete;
  virtual ~MetricsSink() = default;
  /// For messages.
  virtual std::string name() const = 0;
  /// The whole record or nothing of it: throws IoError, and the next record may be tried.
  virtual void write(const StepMetrics& metrics) = 0;
};

}  // namespace red::train
