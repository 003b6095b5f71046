// What the ranks have to tell each other about a step for its metrics: two small reductions per logged step.
#pragma once

#include "model/cost_model.hpp"
#include "train/machine.hpp"
#include "train/metrics.hpp"

namespace red::train {

class StepReport {
 public:
  /// Measures the peak rate of all ranks together. Collective.
  StepReport(Engine& engine, const model::ModelConfig& model, Stream& stream);

  /// Metrics of a step that took step_s and whose samples, on this rank, were `batches` with this digest.
  /// Reads and clears the engine's phase timer. Collective; the result is the same on every rank.
  StepMetrics gather(std::span<const data::MicroBatch> batches, const StepResult& result, double step_s,
                     uint64_t digest);

  double peak_gflops() const { return peak_gflops_; }  ///< of all ranks

 private:
  void reduce(std::span<double> values, parallel::ReduceOp op);

  Engine& engine_;
  model::ModelConfig model_;
  double peak_gflops_ = 0.0;
};

}  // namespace red::train
