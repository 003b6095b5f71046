// What the ranks have to tell each other about a step for its metrics: two small reductions per logged step,
// and two more on GPUs.
#pragma once

#include "device/backend.hpp"
#include "model/cost_model.hpp"
#include "train/gpu_watch.hpp"
#include "train/machine.hpp"
#include "train/metrics.hpp"
#include "train/peak.hpp"

namespace red::train {

class StepReport {
 public:
  /// Finds the peak rate of all ranks together. Collective.
  StepReport(Engine& engine, const model::ModelConfig& model, Stream& stream);

  /// Metrics of a step that took step_s and whose samples, on this rank, were `batches` with this digest.
  /// Reads and clears the engine's phase timer. Collective; the result is the same on every rank.
  StepMetrics gather(std::span<const data::MicroBatch> batches, const StepResult& result, double step_s,
                     uint64_t digest);

  const Peak& peak() const { return peak_; }
  /// What there is to say where gather() found this rank's GPU lost; else empty.
  const std::string& loss_of_gpu() const { return gpu_.loss(); }

 private:
  void reduce(std::span<double> values, parallel::ReduceOp op);
  std::optional<GpuMetrics> gather_gpus();

  Engine& engine_;
  model::ModelConfig model_;
  const Peak peak_;
  const bool on_gpu_ = gpu_facts().has_value();
  const std::vector<std::string> gpu_names_;  ///< of all ranks, each once
  GpuWatch gpu_;
};

}  // namespace red::train
