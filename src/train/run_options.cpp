#include "train/run_options.hpp"

#include <algorithm>

#include "model/cost_model.hpp"

namespace red::train {
namespace {

EngineOptions common_options(const config::RunConfig& config, const SampleLengths& lengths,
                             int64_t micro_batch) {
  RED_CHECK(config.train.precision != model::Precision::automatic, "train.precision is not settled yet");
  EngineOptions options;
  options.dtype = config.train.precision == model::Precision::bf16 ? DType::bf16 : DType::fp32;
  options.model = config.model;
  options.optimizer = config.optimizer;
  options.capacity = {micro_batch, micro_batch * lengths.encoder, micro_batch * lengths.decoder};
  options.costs = model::layer_costs(config.model, model::work_of(lengths.encoder, lengths.decoder));
  options.max_positions = lengths.encoder + lengths.decoder;
  options.head_chunk = config.train.head_chunk;
  options.z_loss = static_cast<float>(config.train.z_loss);
  options.buckets = {static_cast<std::size_t>(config.train.bucket_mib) << 20, config.train.gradient_dtype,
                     config.transport.overlap};
  return options;
}

}  // namespace

EngineOptions training_options(const config::RunConfig& config, const SampleLengths& lengths) {
  EngineOptions options = common_options(config, lengths, config.train.micro_batch);
  options.split = config.split;
  options.schedule = config.pipeline_schedule;
  options.virtual_stages = config.num_chunks();
  options.dropout = {static_cast<float>(config.train.dropout), config.model.init_seed};
  options.recompute = config.train.recompute;
  options.recompute_layers = config.train.recompute_layers;
  options.checkpoint_copy = config.checkpoint.async;
  options.max_micro_batches =
      static_cast<int>(config.train.global_batch / (config.train.micro_batch * config.parallel.data));
  return options;
}

EngineOptions evaluation_options(const config::RunConfig& config, const SampleLengths& lengths,
                                 int64_t micro_batch, int max_micro_batches) {
  EngineOptions options = common_options(config, lengths, micro_batch);
  options.max_micro_batches = max_micro_batches;
  options.z_loss = 0.0F;
  options.train = false;
  return options;
}

data::DecoderPositions decoder_positions(const model::ModelConfig& config) {
  return config.continuous_positions ? data::DecoderPositions::after_encoder
                                     : data::DecoderPositions::from_zero;
}

optim::ScheduleConfig schedule_of(const config::RunConfig& config) {
  optim::ScheduleConfig schedule = config.schedule;
  if (schedule.total_steps == 0) schedule.total_steps = config.train.steps;
  return schedule;
}

}  // namespace red::train
