// Steps of tiny models on tensors in device memory, for tests that compare ways in which ranks exchange it.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "support/backend.hpp"
#include "train/small_run.hpp"

namespace red::test {

/// A model and how it is laid out.
struct StepCase {
  model::Kind kind = model::Kind::red;
  parallel::Layout layout;  ///< {data, tensor, encoder stages, decoder stages, sequence parallelism}
  parallel::PipelineSchedule schedule = parallel::PipelineSchedule::one_forward_one_backward;
  model::Precision precision = model::Precision::fp32;
  int micro_batches = 3;          ///< of each data rank
  DType gradients = DType::fp32;  ///< on their way between data ranks
};

/// As small as the layout allows.
inline config::RunConfig tiny_config(const StepCase& which) {
  config::RunConfig config = small_config(which.kind);
  model::ModelConfig& m = config.model;
  m.d_model = 8;
  m.d_ff = 12;
  m.num_heads = std::max(2, which.layout.tensor);
  m.head_dim = 4;
  const int chunks = which.schedule == parallel::PipelineSchedule::interleaved ? 2 : 1;
  m.encoder_layers = which.kind == model::Kind::red ? std::max(1, which.layout.encoder_stages * chunks) : 0;
  m.decoder_layers = which.layout.decoder_stages * chunks;
  config.parallel = which.layout;
  config.pipeline_schedule = which.schedule;
  config.train.precision = which.precision;
  config.train.gradient_dtype = which.gradients;
  config.train.global_batch = which.micro_batches * which.layout.data;
  return config;
}

/// What one rank has at the end, and what all have.
struct Outcome {
  std::vector<double> losses, norms;
  std::vector<std::vector<float>> gradients, parameters;

  bool operator==(const Outcome&) const = default;
};

/// Bit for bit.
inline void expect_same(const Outcome& got, const Outcome& expected) {
  EXPECT_EQ(got.losses, expected.losses);
  EXPECT_EQ(got.norms, expected.norms);
  EXPECT_EQ(got.gradients, expected.gradients);
  EXPECT_EQ(got.parameters, expected.parameters);
}

/// An engine, and its samples.
class TinyEngine {
 public:
  TinyEngine(const config::RunConfig& config, parallel::Communicator& world, Stream& stream)
      : config_(config),
        stream_(stream),
        mesh_(config.parallel, world, model::layout_limits(config.model)),
        provider_(small_provider(config.model.kind)),
        engine_(options(), mesh_, stream),
        loader_(provider_, train::decoder_positions(config.model), config.train.global_batch,
                config.train.micro_batch, config.parallel.data, mesh_.at().data) {
    engine_.initialize_parameters();
  }
  ~TinyEngine() { stream_.set_progress_hook({}); }
  TinyEngine(const TinyEngine&) = delete;
  TinyEngine& operator=(const TinyEngine&) = delete;

  train::Engine& engine() { return engine_; }
  std::span<const data::MicroBatch> batches(int step) {
    return loader_.load(static_cast<uint64_t>(step * config_.train.global_batch));
  }
  train::StepResult step(int number) { return engine_.train_step(batches(number), 3e-5); }

 private:
  train::EngineOptions options() const {
    train::EngineOptions options =
        train::training_options(config_, {provider_.max_encoder_length(), provider_.max_decoder_length()});
    options.buckets.num_bytes = 1000;  // several for a layer
    return options;
  }

  const config::RunConfig config_;
  Stream& stream_;
  parallel::Mesh mesh_;
  data::SyntheticProvider provider_;
  train::Engine engine_;
  train::BatchLoader loader_;
};

inline Outcome train_tiny(const config::RunConfig& config, parallel::Communicator& world, Stream& stream,
                          int num_steps) {
  TinyEngine tiny(config, world, stream);
  Outcome outcome;
  for (int step = 0; step < num_steps; ++step) {
    const train::StepResult result = tiny.step(step);
    outcome.losses.push_back(result.loss);
    outcome.norms.push_back(result.gradient_norm);
  }
  for (const optim::ParameterShard& shard : tiny.engine().shards().shards()) {
    outcome.gradients.push_back(elements_of<float>(shard.gradient));
    outcome.parameters.push_back(elements_of<float>(shard.weight));
  }
  return outcome;
}

}  // namespace red::test
