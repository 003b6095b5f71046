#include "train/engine_options.hpp"

#include <algorithm>

#include "model/stage_parameters.hpp"

namespace red::train {

parallel::Placement placement_of(const EngineOptions& options, const parallel::Layout& layout) {
  return parallel::place_layers(model::layer_counts(options.model), layout.encoder_stages,
                                layout.decoder_stages, options.costs, options.split);
}

parallel::PipelineShape pipeline_shape(const parallel::Layout& layout, int num_micro_batches) {
  return {layout.encoder_stages, layout.decoder_stages, num_micro_batches};
}

std::vector<parallel::Program> training_programs(const EngineOptions& options, const parallel::Layout& layout,
                                                 int num_micro_batches) {
  return parallel::make_programs(options.schedule, pipeline_shape(layout, num_micro_batches));
}

model::StageOptions stage_options(const EngineOptions& options, const parallel::Layout& layout, int stage) {
  model::StageOptions result;
  result.train = options.train;
  result.capacity = options.capacity;
  result.max_positions = options.max_positions;
  result.head_chunk = options.head_chunk;
  result.z_loss = options.z_loss;
  result.recompute = options.recompute;
  result.recompute_layers = options.recompute_layers;
  if (!options.train) return result;
  const parallel::Program own =
      training_programs(options, layout, std::max(1, options.max_micro_batches))[stage];
  result.num_slots = parallel::max_in_flight(own);
  result.split_backward = parallel::splits_backward(own);
  return result;
}

}  // namespace red::train
