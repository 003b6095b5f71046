// From a run's configuration to what the engine wants to know.
#pragma once

#include "config/run_config.hpp"
#include "train/engine.hpp"

namespace red::train {

using data::SampleLengths;

/// For training, with micro-batches of train.micro_batch.
EngineOptions training_options(const config::RunConfig& config, const SampleLengths& lengths);

/// For evaluation and generation: parameters alone, micro-batches of `micro_batch` sequences.
EngineOptions evaluation_options(const config::RunConfig& config, const SampleLengths& lengths,
                                 int64_t micro_batch, int max_micro_batches);

data::DecoderPositions decoder_positions(const model::ModelConfig& config);

/// The schedule with its end filled in: total_steps = 0 means train.steps.
optim::ScheduleConfig schedule_of(const config::RunConfig& config);

}  // namespace red::train
