// The one place, beside the generators, that says what messages a pipeline has.
#include "parallel/pipeline_topology.hpp"

#include <set>

#include "base/error.hpp"
#include "parallel/message_tags.hpp"

namespace red::parallel {
namespace {

constexpr std::array<MessageRule, kNumMessageKinds> kRules = {{
    {MessageKind::activation, Action::send_activation, Action::receive_activation},
    {MessageKind::memory, Action::send_memory, Action::receive_memory},
    {MessageKind::gradient, Action::send_gradient, Action::receive_gradient},
    {MessageKind::memory_gradient, Action::send_memory_gradient, Action::receive_memory_gradient},
}};

}  // namespace

const std::array<MessageRule, kNumMessageKinds>& message_rules() {
  return kRules;
}

int tag_of(MessageKind kind, int chunk) {
  switch (kind) {
    case MessageKind::activation:
      return tag_of(kTagActivation, chunk);
    case MessageKind::memory:
      return tag_of(kTagMemory, chunk);
    case MessageKind::gradient:
      return tag_of(kTagGradient, chunk);
    case MessageKind::memory_gradient:
      return tag_of(kTagMemoryGradient, chunk);
  }
  throw LogicError("no such message");
}

const MessageRule* rule_of(Action action) {
  for (const MessageRule& rule : kRules) {
    if (rule.send == action || rule.receive == action) return &rule;
  }
  return nullptr;
}

bool PipelineTopology::precedes(MessageKind kind, int from, int to) const {
  const int last_encoder = shape_.last_encoder();  // -1, nobody, where the stacks share their one stage
  switch (kind) {
    case MessageKind::activation:
      return to == from + 1 && shape_.is_decoder(from) == shape_.is_decoder(to);
    case MessageKind::gradient:
      return from == to + 1 && shape_.is_decoder(from) == shape_.is_decoder(to);
    case MessageKind::memory:  // one message for all chunks of a stage
      return from == last_encoder && shape_.is_decoder(to) && shape_.chunk_of(to) == 0;
    case MessageKind::memory_gradient:
      return to == last_encoder && shape_.is_decoder(from);
  }
  return false;
}

std::vector<Route> PipelineTopology::routes(bool train) const {
  std::set<Route> routes;
  for (const MessageRule& rule : kRules) {
    const bool forwards = rule.kind == MessageKind::activation || rule.kind == MessageKind::memory;
    if (!train && !forwards) continue;
    for (int from = 0; from < shape_.num_virtual_stages(); ++from) {
      for (int to = 0; to < shape_.num_virtual_stages(); ++to) {
        if (connects(rule.kind, from, to))
          routes.insert(
              {shape_.stage_of(from), shape_.stage_of(to), tag_of(rule.kind, shape_.chunk_of(from))});
      }
    }
  }
  return {routes.begin(), routes.end()};
}

std::vector<Instruction> PipelineTopology::needs(int stage, const Instruction& instruction) const {
  std::vector<Instruction> needed;
  const int i = instruction.micro_batch, chunk = instruction.chunk;
  const int at = shape_.virtual_stage(stage, chunk);
  switch (instruction.action) {
    case Action::forward:
      add_inputs(kRules[0], at, i, needed);
      add_inputs(kRules[1], shape_.virtual_stage(stage, 0), i, needed);
      break;
    case Action::backward:
    case Action::backward_input:
      needed.push_back({Action::forward, i, -1, chunk});
      add_inputs(kRules[2], at, i, needed);
      add_inputs(kRules[3], at, i, needed);
      break;
    case Action::backward_weight:
    case Action::send_gradient:
    case Action::send_memory_gradient:
      needed.push_back({Action::backward_input, i, -1, chunk});
      break;
    case Action::send_activation:
    case Action::send_memory:
      needed.push_back({Action::forward, i, -1, chunk});
      break;
    case Action::reduce_gradients:
      for (int c = 0; c < shape_.virtual_stages; ++c) {
        for (int j = 0; j < shape_.num_micro_batches; ++j)
          needed.push_back({Action::backward_weight, j, -1, c});
      }
      break;
    case Action::receive_activation:
    case Action::receive_memory:
    case Action::receive_gradient:
    case Action::receive_memory_gradient:
      break;  // they wait for another stage instead
  }
  return needed;
}

/// A message, or the compute of another chunk on the same stage.
void PipelineTopology::add_inputs(const MessageRule& rule, int virtual_stage, int micro_batch,
                                  std::vector<Instruction>& needed) const {
  const int chunk = shape_.chunk_of(virtual_stage);
  for (int from = 0; from < shape_.num_virtual_stages(); ++from) {
    if (!precedes(rule.kind, from, virtual_stage)) continue;
    if (connects(rule.kind, from, virtual_stage)) {
      needed.push_back({rule.receive, micro_batch, from, chunk});
    } else {
      const bool forwards = rule.kind == MessageKind::activation;
      needed.push_back(
          {forwards ? Action::forward : Action::backward_input, micro_batch, -1, shape_.chunk_of(from)});
    }
  }
}

}  // namespace red::parallel
