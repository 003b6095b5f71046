// What an engine is told, and what follows from it for each stage of a layout: pure functions, so that a plan
// needs no ranks.
#pragma once

#include <vector>

#include "model/stage_group.hpp"
#include "optim/optimizer_config.hpp"
#include "parallel/communicator.hpp"
#include "parallel/layout.hpp"
#include "parallel/placement.hpp"
#include "parallel/schedule.hpp"

namespace red::train {

struct EngineOptions {
  model::ModelConfig model;
  optim::AdafactorConfig optimizer;
  parallel::LayerCosts costs;  ///< what the split of layers over stages balances
  parallel::LayerSplit split;  ///< the user's own
  model::BatchShape capacity;  ///< the largest micro-batch
  int64_t max_positions = 0;   ///< longest encoder plus longest decoder sequence
  int max_micro_batches = 1;   ///< of one data rank in one step
  parallel::PipelineSchedule schedule = parallel::PipelineSchedule::one_forward_one_backward;
  int virtual_stages = 1;  ///< chunks of layers on each stage; more than one only with `interleaved`
  model::Recompute recompute = model::Recompute::none;
  int64_t recompute_layers = 0;  ///< of each stack of a stage, from the first; 0: all
  int64_t head_chunk = 512;
  float z_loss = 0.0F;
  model::DropoutConfig dropout;
  optim::BucketOptions buckets;
  DType dtype = DType::fp32;     ///< of matrices and activations, fp32 or bf16
  bool train = true;             ///< false: no gradients, no optimizer
  bool checkpoint_copy = false;  ///< memory for copy_checkpoint_shards()
  model::CacheShape cache;       ///< for prefill() and decode(); without sequences there is none
};

parallel::Placement placement_of(const EngineOptions& options, const parallel::Layout& layout);

parallel::PipelineShape pipeline_shape(const EngineOptions& options, const parallel::Layout& layout,
                                       int num_micro_batches);

/// Of each stage, for a training step of max_micro_batches; steps of fewer run the first of them.
std::vector<parallel::Program> training_programs(const EngineOptions& options,
                                                 const parallel::Layout& layout);

/// Of every message between stages that an engine ever sends.
std::vector<parallel::Route> message_routes(const EngineOptions& options, const parallel::Layout& layout);

/// Of each chunk of a stage. The program of a whole step decides how many micro-batches a chunk holds at a
/// time, what arrives from other stages, and whether its backward passes come apart; evaluation (`program` is
/// not asked) holds one micro-batch.
std::vector<model::StageOptions> stage_options(const EngineOptions& options,
                                               const parallel::Program& program);

}  // namespace red::train
