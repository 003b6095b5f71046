#include "train/engine_options.hpp"

#include <algorithm>

#include "model/stage_parameters.hpp"
#include "optim/tied_embedding.hpp"
#include "parallel/pipeline_topology.hpp"

namespace red::train {
namespace {

bool has_action(const parallel::Program& program, parallel::Action action) {
  return std::any_of(program.begin(), program.end(),
                     [action](const parallel::Instruction& x) { return x.action == action; });
}

}  // namespace

parallel::Placement placement_of(const EngineOptions& options, const parallel::Layout& layout) {
  return parallel::place_layers(model::layer_counts(options.model), pipeline_shape(options, layout, 1),
                                options.costs, options.split);
}

parallel::PipelineShape pipeline_shape(const EngineOptions& options, const parallel::Layout& layout,
                                       int num_micro_batches) {
  return {layout.encoder_stages, layout.decoder_stages, num_micro_batches, options.virtual_stages};
}

std::vector<parallel::Program> training_programs(const EngineOptions& options,
                                                 const parallel::Layout& layout) {
  const int num_micro_batches = std::max(1, options.max_micro_batches);
  return parallel::make_programs(options.schedule, pipeline_shape(options, layout, num_micro_batches));
}

std::vector<parallel::Route> message_routes(const EngineOptions& options, const parallel::Layout& layout) {
  const parallel::PipelineTopology topology(pipeline_shape(options, layout, 1));
  std::vector<parallel::Route> routes = topology.routes(options.train);
  if (!options.train) return routes;
  const parallel::Placement placement = placement_of(options, layout);
  for (const parallel::Route& route :
       optim::TiedEmbedding::routes(placement.embedding_holders, placement.embedding_owner))
    routes.push_back(route);
  return routes;
}

std::vector<model::StageOptions> stage_options(const EngineOptions& options,
                                               const parallel::Program& program) {
  model::StageOptions common;
  common.train = options.train;
  common.capacity = options.capacity;
  common.cache = options.cache;
  common.max_positions = options.max_positions;
  common.head_chunk = options.head_chunk;
  common.z_loss = options.z_loss;
  common.dropout = options.dropout;
  common.recompute = options.recompute;
  common.recompute_layers = options.recompute_layers;
  common.split_backward = options.train && parallel::splits_backward(program);
  common.activations_arrive = options.train && has_action(program, parallel::Action::receive_activation);
  common.memory_arrives = options.train && has_action(program, parallel::Action::receive_memory);
  std::vector<model::StageOptions> result(static_cast<std::size_t>(options.virtual_stages), common);
  if (!options.train) return result;
  for (int chunk = 0; chunk < options.virtual_stages; ++chunk)
    result[chunk].num_slots = parallel::max_in_flight(program, chunk);
  return result;
}

}  // namespace red::train
