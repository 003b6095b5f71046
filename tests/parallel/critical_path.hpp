// The longest chain of costs through given programs, apart from the simulator: an instruction ends when the
// one before it on its stage has, and for a receive its message has arrived, and its own cost is over.
#pragma once

#include <algorithm>
#include <vector>

#include "parallel/pipeline_topology.hpp"
#include "parallel/simulator.hpp"

namespace red::parallel {

class CriticalPath {
 public:
  CriticalPath(const PipelineShape& shape, const std::vector<Program>& programs, const SimulationCosts& costs)
      : shape_(shape), programs_(programs), costs_(costs), ends_(programs.size()), places_(programs.size()) {
    for (std::size_t stage = 0; stage < programs.size(); ++stage) {
      ends_[stage].assign(programs[stage].size(), -1.0);
      places_[stage].assign(
          kNumActions * static_cast<std::size_t>(shape.num_micro_batches) * width() * num_chunks(), 0);
      for (std::size_t at = 0; at < programs[stage].size(); ++at) {
        if (rule_of(programs[stage][at].action) != nullptr)
          places_[stage][index_of(programs[stage][at])] = at;
      }
    }
  }

  double length() {
    double longest = 0.0;
    for (std::size_t stage = 0; stage < programs_.size(); ++stage)
      longest = std::max(longest, end(stage, programs_[stage].size() - 1));
    return longest;
  }

 private:
  static constexpr std::size_t kNumActions = static_cast<std::size_t>(Action::reduce_gradients) + 1;

  std::size_t index_of(const Instruction& x) const {
    const auto row = static_cast<std::size_t>(x.action) * static_cast<std::size_t>(shape_.num_micro_batches) +
                     static_cast<std::size_t>(x.micro_batch);
    return (row * width() + static_cast<std::size_t>(x.peer)) * num_chunks() +
           static_cast<std::size_t>(x.chunk);
  }

  std::size_t width() const { return static_cast<std::size_t>(shape_.num_virtual_stages()); }
  std::size_t num_chunks() const { return static_cast<std::size_t>(shape_.virtual_stages); }

  double cost(std::size_t stage, const Instruction& x) const {
    const int at = shape_.virtual_stage(static_cast<int>(stage), x.chunk);
    const StageCost& c = costs_.stages[static_cast<std::size_t>(at)];
    const Action action = x.action;
    if (action == Action::forward) return c.forward;
    if (action == Action::backward) return c.backward_input + c.backward_weight;
    if (action == Action::backward_input) return c.backward_input;
    return action == Action::backward_weight ? c.backward_weight : 0.0;
  }

  double end(std::size_t stage, std::size_t at) {
    double& known = ends_[stage][at];
    if (known >= 0.0) return known;
    const Instruction& x = programs_[stage][at];
    double begin = at == 0 ? 0.0 : end(stage, at - 1);
    const MessageRule* rule = rule_of(x.action);
    if (rule != nullptr && rule->receive == x.action) {
      const auto from = static_cast<std::size_t>(shape_.stage_of(x.peer));
      const Instruction send{rule->send, x.micro_batch,
                             shape_.virtual_stage(static_cast<int>(stage), x.chunk), shape_.chunk_of(x.peer)};
      begin = std::max(begin, end(from, places_[from][index_of(send)]) + costs_.transfer);
    }
    return known = begin + cost(stage, x);
  }

  PipelineShape shape_;
  const std::vector<Program>& programs_;
  const SimulationCosts& costs_;
  std::vector<std::vector<double>> ends_;         // by stage and instruction; -1: not known yet
  std::vector<std::vector<std::size_t>> places_;  // by stage and message: where in the program
};

}  // namespace red::parallel
