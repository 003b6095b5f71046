#include "train/step_report.hpp"

#include <algorithm>
#include <limits>

#include "data/sample_digest.hpp"

namespace red::train {
namespace {

constexpr std::size_t kPhases = kPhaseNames.size();

}  // namespace

StepReport::StepReport(Engine& engine, const model::ModelConfig& model, Stream& stream)
    : engine_(engine), model_(model), peak_(find_peak(engine.mesh().world(), stream, engine.dtype())) {}

void StepReport::reduce(std::span<double> values, parallel::ReduceOp op) {
  parallel::Communicator& world = engine_.mesh().world();
  parallel::Request request =
      world.all_reduce(make_tensor(values.data(), static_cast<int64_t>(values.size()), 1), op);
  world.wait(request, "all-reduce of step metrics");
}

std::optional<GpuMetrics> StepReport::gather_gpus() {
  constexpr double none = -std::numeric_limits<double>::infinity();
  const auto state = gpu_.look();
  std::array<double, 3> sums{};  // ranks with sensors, those whose GPU is slowed, errors
  std::array<double, 3> most{none, none, none};
  if (state) {
    sums = {1.0, state->slowed_by.empty() ? 0.0 : 1.0, static_cast<double>(state->ecc_errors.value_or(0))};
    most = {state->sm_mhz ? -*state->sm_mhz : none, state->temperature_c.value_or(none),
            state->power_w.value_or(none)};
  }
  reduce(sums, parallel::ReduceOp::sum);
  if (sums[0] == 0.0) return std::nullopt;
  reduce(most, parallel::ReduceOp::max);
  return GpuMetrics{.sm_mhz = -most[0],
                    .temperature_c = most[1],
                    .power_w = most[2],
                    .slowed_ranks = static_cast<int64_t>(sums[1]),
                    .ecc_errors = static_cast<int64_t>(sums[2])};
}

StepMetrics StepReport::gather(std::span<const data::MicroBatch> batches, const StepResult& result,
                               double step_s, uint64_t digest) {
  // Sums: digest lanes, FLOPs, tokens; one rank of each pipeline speaks for its samples.
  std::array<double, 6> sums{};
  if (engine_.speaks_for_samples()) {
    const auto lanes = data::digest_lanes(digest);
    std::copy(lanes.begin(), lanes.end(), sums.begin());
    for (const data::MicroBatch& batch : batches) {
      sums[4] += model::training_flops(model_, model::work_of(batch));
      sums[5] += static_cast<double>(batch.encoder.num_tokens() + batch.decoder.num_tokens());
    }
  }
  std::array<double, kPhases + 2> most{};  // slowest rank by phase, largest memories
  for (std::size_t i = 0; i < kPhases; ++i) most[i] = engine_.timer().seconds(static_cast<Phase>(i));
  most[kPhases] = peak_rss_mib();
  most[kPhases + 1] = static_cast<double>(peak_device_bytes()) / (1 << 20);
  engine_.timer().clear();
  reduce(sums, parallel::ReduceOp::sum);
  reduce(most, parallel::ReduceOp::max);

  StepMetrics metrics;
  metrics.result = result;
  metrics.step_s = step_s;
  metrics.tokens_per_s = sums[5] / step_s;
  metrics.model_gflops_per_s = sums[4] / step_s / 1e9;
  metrics.peak_share = peak_.measured_gflops > 0.0 ? metrics.model_gflops_per_s / peak_.measured_gflops : 0.0;
  metrics.mfu = peak_.stated_gflops > 0.0 ? metrics.model_gflops_per_s / peak_.stated_gflops : 0.0;
  if (on_gpu_) metrics.gpu = gather_gpus();
  metrics.peak_rss_mib = most[kPhases];
  metrics.peak_device_mib = most[kPhases + 1];
  std::array<int32_t, 4> lanes{};
  for (std::size_t i = 0; i < lanes.size(); ++i) lanes[i] = static_cast<int32_t>(sums[i]);
  metrics.sample_digest = data::digest_from_lanes(lanes);
  metrics.phase_s.assign(most.begin(), most.begin() + kPhases);
  return metrics;
}

}  // namespace red::train
