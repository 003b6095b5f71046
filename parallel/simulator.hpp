// Replays a schedule with given costs: a proof that it cannot deadlock, and the yardstick for the measured
// pipeline.
#pragma once

#include <vector>

#include "parallel/schedule.hpp"

namespace red::parallel {

/// Seconds (or any unit) of one micro-batch on one virtual stage.
struct StageCost {
  double forward = 1.0;
  double backward_input = 1.0;
  double backward_weight = 1.0;
};

struct SimulationCosts {
  std::vector<StageCost> stages;  ///< by virtual stage
  double transfer = 0.0;          ///< of one message; sends do not hold up the sender
};

struct Simulation {
  double makespan = 0.0;
  std::vector<double> busy;  ///< per stage, seconds in compute
  std::vector<double> wait;  ///< per stage, makespan - busy
  double bubble = 0.0;       ///< 1 - sum(busy) / (stages * makespan)
};

/// What a schedule is for: a training step, or evaluation, which has no backward and no gradients.
enum class Passes { forward_and_backward, forward_only };

/// Throws LogicError naming the stage and instruction when the programs deadlock, when a message has no
/// partner, or when a compute instruction runs before its input is there or more than once.
Simulation simulate(const PipelineShape& shape, const std::vector<Program>& programs,
                    const SimulationCosts& costs, Passes passes = Passes::forward_and_backward);

}  // namespace red::parallel
