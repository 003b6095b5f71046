#include "train/bubble.hpp"

#include <algorithm>

#include "device/backend.hpp"
#include "parallel/simulator.hpp"

namespace red::train {
namespace {

double simulated_bubble(const EngineOptions& options, const parallel::Layout& layout,
                        const parallel::SimulationCosts& costs) {
  const int num_micro_batches = std::max(1, options.max_micro_batches);
  return parallel::simulate(pipeline_shape(options, layout, num_micro_batches),
                            training_programs(options, layout), costs)
      .bubble;
}

/// Seconds of a step, the mean over the ranks of a stage.
struct StageSeconds {
  std::vector<parallel::StageCost> compute;  ///< by virtual stage
  std::vector<double> elapsed;               ///< by stage
};

StageSeconds gather(const Engine& engine) {
  const parallel::Layout& layout = engine.mesh().layout();
  const parallel::PipelineShape shape = pipeline_shape(engine.options(), layout, 1);
  const PipelineExecutor::Times& own = engine.executor().times();
  StageSeconds seconds;
  seconds.compute.resize(shape.num_virtual_stages(), {0.0, 0.0, 0.0});
  seconds.elapsed.resize(layout.num_stages());
  const int stage = engine.mesh().at().stage;
  for (int chunk = 0; chunk < shape.virtual_stages; ++chunk)
    seconds.compute[shape.virtual_stage(stage, chunk)] = own.compute_s[chunk];
  seconds.elapsed[stage] = own.elapsed_s;

  std::vector<double*> all;
  for (parallel::StageCost& c : seconds.compute)
    all.insert(all.end(), {&c.forward, &c.backward_input, &c.backward_weight});
  for (double& s : seconds.elapsed) all.push_back(&s);
  std::vector<double> values(all.size());
  std::transform(all.begin(), all.end(), values.begin(), [](const double* v) { return *v; });
  parallel::Communicator& world = engine.mesh().world();
  parallel::Request request = world.all_reduce(
      make_tensor(values.data(), static_cast<int64_t>(values.size()), 1), parallel::ReduceOp::sum);
  world.wait(request, "all-reduce of stage times");
  const double num_ranks = static_cast<double>(layout.data) * layout.tensor;
  for (std::size_t i = 0; i < all.size(); ++i) *all[i] = values[i] / num_ranks;
  return seconds;
}

}  // namespace

double modelled_bubble(const EngineOptions& options, const parallel::Layout& layout) {
  parallel::SimulationCosts costs;
  for (const parallel::StagePlacement& stage : placement_of(options, layout).stages)
    costs.stages.push_back({stage.cost, stage.cost, stage.cost});
  return simulated_bubble(options, layout, costs);
}

std::optional<Bubble> bubble_of_last_step(const Engine& engine) {
  if (backend_name() != "cpu") return std::nullopt;
  StageSeconds seconds = gather(engine);
  double busy = 0.0;
  for (const parallel::StageCost& c : seconds.compute)
    busy += c.forward + c.backward_input + c.backward_weight;
  const double makespan = *std::max_element(seconds.elapsed.begin(), seconds.elapsed.end());
  // All micro-batches took as long, for the simulator, which has seconds of each.
  Bubble bubble;
  bubble.measured = 1.0 - busy / (makespan * static_cast<double>(seconds.elapsed.size()));
  bubble.simulated =
      simulated_bubble(engine.options(), engine.mesh().layout(), {.stages = std::move(seconds.compute)});
  return bubble;
}

}  // namespace red::train
