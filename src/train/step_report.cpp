#include "train/step_report.hpp"

#include <algorithm>

#include "data/sample_digest.hpp"

namespace red::train {
namespace {

constexpr std::size_t kPhases = kPhaseNames.size();

}  // namespace

StepReport::StepReport(Engine& engine, const model::ModelConfig& model, Stream& stream)
    : engine_(engine), model_(model) {
  double peak[1] = {measured_peak_gflops(stream, engine.dtype())};
  reduce(peak, parallel::ReduceOp::sum);
  peak_gflops_ = peak[0];
}

void StepReport::reduce(std::span<double> values, parallel::ReduceOp op) {
  parallel::Communicator& world = engine_.mesh().world();
  parallel::Request request =
      world.all_reduce(make_tensor(values.data(), static_cast<int64_t>(values.size()), 1), op);
  world.wait(request, "all-reduce of step metrics");
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
  metrics.peak_share = peak_gflops_ > 0.0 ? metrics.model_gflops_per_s / peak_gflops_ : 0.0;
  metrics.peak_rss_mib = most[kPhases];
  metrics.peak_device_mib = most[kPhases + 1];
  std::array<int32_t, 4> lanes{};
  for (std::size_t i = 0; i < lanes.size(); ++i) lanes[i] = static_cast<int32_t>(sums[i]);
  metrics.sample_digest = data::digest_from_lanes(lanes);
  metrics.phase_s.assign(most.begin(), most.begin() + kPhases);
  return metrics;
}

}  // namespace red::train
