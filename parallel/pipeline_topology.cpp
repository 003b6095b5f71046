// The one place, beside the generators, that says what messages a pipeline has.
#include "parallel/pipeline_topology.hpp"

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

const MessageRule* rule_of(Action action) {
  for (const MessageRule& rule : kRules) {
    if (rule.send == action || rule.receive == action) return &rule;
  }
  return nullptr;
}

bool PipelineTopology::connects(MessageKind kind, int from, int to) const {
  const int last_encoder = shape_.encoder_stages - 1;  // -1, nobody, where the stacks share their one stage
  switch (kind) {
    case MessageKind::activation:
      return to == from + 1 && is_decoder(from) == is_decoder(to);
    case MessageKind::gradient:
      return from == to + 1 && is_decoder(from) == is_decoder(to);
    case MessageKind::memory:
      return from == last_encoder && is_decoder(to);
    case MessageKind::memory_gradient:
      return to == last_encoder && is_decoder(from);
  }
  return false;
}

std::vector<Instruction> PipelineTopology::needs(int stage, const Instruction& instruction) const {
  std::vector<Instruction> needed;
  const int i = instruction.micro_batch;
  switch (instruction.action) {
    case Action::forward:
      add_inputs(kRules[0], stage, i, needed);
      add_inputs(kRules[1], stage, i, needed);
      break;
    case Action::backward:
    case Action::backward_input:
      needed.push_back({Action::forward, i, -1});
      add_inputs(kRules[2], stage, i, needed);
      add_inputs(kRules[3], stage, i, needed);
      break;
    case Action::backward_weight:
    case Action::send_gradient:
    case Action::send_memory_gradient:
      needed.push_back({Action::backward_input, i, -1});
      break;
    case Action::send_activation:
    case Action::send_memory:
      needed.push_back({Action::forward, i, -1});
      break;
    case Action::reduce_gradients:
      for (int j = 0; j < num_micro_batches(); ++j) needed.push_back({Action::backward_weight, j, -1});
      break;
    case Action::receive_activation:
    case Action::receive_memory:
    case Action::receive_gradient:
    case Action::receive_memory_gradient:
      break;  // they wait for another stage instead
  }
  return needed;
}

void PipelineTopology::add_inputs(const MessageRule& rule, int stage, int micro_batch,
                                  std::vector<Instruction>& needed) const {
  for (int from = 0; from < num_stages(); ++from) {
    if (connects(rule.kind, from, stage)) needed.push_back({rule.receive, micro_batch, from});
  }
}

}  // namespace red::parallel
