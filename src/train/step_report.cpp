#include "train/step_report.hpp"

#include <algorithm>
#include <limits>

#include "data/sample_digest.hpp"

namespace red::train {
namespace {

constexpr std::size_t kPhases = kPhaseNames.size();

/// What the ranks compute on, each name once, in the order of ranks. Collective.
std::vector<std::string> names_of_gpus(parallel::Communicator& world) {
  const auto gpu = gpu_facts();
  if (!gpu) return {};                 // nor has any other rank one
  constexpr std::size_t length = 256;  // than which no name is longer
  std::vector<std::array<uint8_t, length>> all(static_cast<std::size_t>(world.size()));
  std::copy_n(gpu->name.begin(), std::min(gpu->name.size(), length - 1),
              all[static_cast<std::size_t>(world.rank())].begin());
  const Tensor rows = make_tensor(all.data()->data(), world.size(), static_cast<int64_t>(length));
  parallel::Request request = world.all_gather(rows, rows.row_range(world.rank(), 1));
  world.wait(request, "names of the GPUs");
  std::vector<std::string> names;
  for (const auto& row : all) {
    std::string name(row.begin(), std::find(row.begin(), row.end(), uint8_t{0}));
    if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(std::move(name));
  }
  return names;
}

}  // namespace

StepReport::StepReport(Engine& engine, const model::ModelConfig& model, Stream& stream)
    : engine_(engine),
      model_(model),
      peak_(find_peak(engine.mesh().world(), stream, engine.dtype())),
      gpu_names_(names_of_gpus(engine.mesh().world())) {}

void StepReport::reduce(std::span<double> values, parallel::ReduceOp op) {
  parallel::Communicator& world = engine_.mesh().world();
  parallel::Request request =
      world.all_reduce(make_tensor(values.data(), static_cast<int64_t>(values.size()), 1), op);
  world.wait(request, "all-reduce of step metrics");
}

std::optional<GpuMetrics> StepReport::gather_gpus() {
  constexpr double none = -std::numeric_limits<double>::infinity();
  const auto state = gpu_.look();
  const auto least = [](const std::optional<double>& value) { return value ? -*value : none; };
  std::array<double, 4> sums{};  // ranks with sensors, those whose GPU is slowed, errors, those without GPU
  std::array<double, 5> most{none, none, none, none, none};
  if (state) {
    sums = {1.0, state->slowed_by.empty() ? 0.0 : 1.0, static_cast<double>(state->ecc_errors.value_or(0)),
            state->lost.empty() ? 0.0 : 1.0};
    most = {least(state->sm_mhz), least(state->memory_mhz), state->temperature_c.value_or(none),
            state->power_w.value_or(none), least(state->power_limit_w)};
  }
  reduce(sums, parallel::ReduceOp::sum);
  if (sums[0] == 0.0) return std::nullopt;
  reduce(most, parallel::ReduceOp::max);
  return GpuMetrics{.sm_mhz = -most[0],
                    .memory_mhz = -most[1],
                    .temperature_c = most[2],
                    .power_w = most[3],
                    .power_limit_w = -most[4],
                    .slowed_ranks = static_cast<int64_t>(sums[1]),
                    .ecc_errors = static_cast<int64_t>(sums[2]),
                    .lost_ranks = static_cast<int64_t>(sums[3])};
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
  metrics.gpu_names = gpu_names_;
  metrics.peak_rss_mib = most[kPhases];
  metrics.peak_device_mib = most[kPhases + 1];
  std::array<int32_t, 4> lanes{};
  for (std::size_t i = 0; i < lanes.size(); ++i) lanes[i] = static_cast<int32_t>(sums[i]);
  metrics.sample_digest = data::digest_from_lanes(lanes);
  metrics.phase_s.assign(most.begin(), most.begin() + kPhases);
  return metrics;
}

}  // namespace red::train
