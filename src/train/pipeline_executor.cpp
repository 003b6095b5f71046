#include "train/pipeline_executor.hpp"

#include <algorithm>
#include <array>

#include "base/check.hpp"
#include "parallel/message_tags.hpp"

namespace red::train {

using parallel::Action;
using parallel::Instruction;
using parallel::MessageKind;

namespace {

struct Message {
  int tag;
  std::string_view what;  ///< whoever receives it waits for this
};

const Message& message_of(MessageKind kind) {
  static constexpr std::array<Message, parallel::kNumMessageKinds> messages = {{
      {parallel::kTagActivation, "activations of the stage before"},
      {parallel::kTagMemory, "the encoder's output"},
      {parallel::kTagGradient, "gradients of the stage behind"},
      {parallel::kTagMemoryGradient, "gradients of the encoder's output"},
  }};
  return messages[static_cast<std::size_t>(kind)];
}

}  // namespace

PipelineExecutor::PipelineExecutor(model::Stage& stage, parallel::Communicator& pipeline,
                                   const model::TensorAxis& tensor)
    : stage_(stage),
      pipeline_(pipeline),
      tensor_(tensor),
      loaded_(stage.num_slots(), -1),
      sends_(stage.num_slots()) {}

void PipelineExecutor::run(const parallel::Program& program, std::span<const data::MicroBatch> batches,
                           model::ForwardMode mode, PhaseTimer& timer) {
  std::fill(loaded_.begin(), loaded_.end(), -1);
  num_micro_batches_ = static_cast<int>(batches.size());
  for (const Instruction& instruction : program) {
    if (instruction.micro_batch >= 0) load(instruction.micro_batch, batches);
    execute(instruction, mode, timer);
  }
  timer.measure(Phase::pipeline_wait, [&] {
    for (int slot = 0; slot < stage_.num_slots(); ++slot) finish_sends(slot);
  });
}

/// The first instruction that names a micro-batch gives it its slot.
void PipelineExecutor::load(int micro_batch, std::span<const data::MicroBatch> batches) {
  const int slot = slot_of(micro_batch);
  if (loaded_[slot] == micro_batch) return;
  RED_CHECK(loaded_[slot] < micro_batch, "slot {} still holds micro-batch {}", slot, loaded_[slot]);
  finish_sends(slot);
  stage_.load(slot, batches[micro_batch]);
  loaded_[slot] = micro_batch;
}

void PipelineExecutor::finish_sends(int slot) {
  for (parallel::Request& request : sends_[slot]) pipeline_.wait(request, "send to a neighbouring stage");
  sends_[slot].clear();
}

/// Waits for tensor neighbours inside a layer count as communication.
template <class Compute>
void PipelineExecutor::compute(Phase phase, PhaseTimer& timer, const Compute& body) {
  const double before = tensor_.wait_seconds();
  timer.measure(phase, body);
  const double waited = tensor_.wait_seconds() - before;
  timer.add(phase, -waited);
  timer.add(Phase::communication, waited);
}

void PipelineExecutor::execute(const Instruction& instruction, model::ForwardMode mode, PhaseTimer& timer) {
  const int slot = instruction.micro_batch < 0 ? 0 : slot_of(instruction.micro_batch);
  const bool last = instruction.micro_batch + 1 == num_micro_batches_;
  switch (instruction.action) {
    case Action::forward:
      compute(Phase::forward, timer, [&] { stage_.forward(slot, mode); });
      break;
    case Action::backward:
      compute(Phase::backward, timer, [&] { stage_.backward(slot, last); });
      break;
    case Action::backward_input:
      compute(Phase::backward, timer, [&] { stage_.backward_input(slot); });
      break;
    case Action::backward_weight:
      compute(Phase::backward, timer, [&] { stage_.backward_weight(slot, last); });
      break;
    case Action::reduce_gradients:  // the caller's next step
      break;
    default:
      transfer(instruction, slot, timer);
  }
}

/// One end of a message. Sends are finished when their slot is needed again, receives at once.
void PipelineExecutor::transfer(const Instruction& instruction, int slot, PhaseTimer& timer) {
  const parallel::MessageRule* rule = parallel::rule_of(instruction.action);
  RED_CHECK(rule != nullptr, "this executor cannot run {}", parallel::to_string(instruction));
  const Message& message = message_of(rule->kind);
  const bool sends = instruction.action == rule->send;
  const Tensor x = tensor_of(rule->kind, sends, slot);
  if (sends) {
    sends_[slot].push_back(pipeline_.send(x, instruction.peer, message.tag));
    return;
  }
  timer.measure(Phase::pipeline_wait, [&] {
    parallel::Request request = pipeline_.receive(x, instruction.peer, message.tag);
    pipeline_.wait(request, message.what);
  });
  if (rule->kind == MessageKind::memory_gradient) stage_.add_memory_gradient_part(slot);
}

Tensor PipelineExecutor::tensor_of(MessageKind kind, bool sends, int index) {
  model::Stage::Slot& slot = stage_.slot(index);
  const bool encoder = stage_.placement().has_encoder_part();
  switch (kind) {
    case MessageKind::activation:
      if (sends) return encoder ? slot.encoder_output : slot.decoder_output;
      return encoder ? slot.encoder_input : slot.decoder_input;
    case MessageKind::gradient:
      if (sends) return encoder ? slot.d_encoder_input : slot.d_decoder_input;
      return encoder ? slot.d_encoder_output : slot.d_decoder_output;
    case MessageKind::memory:
      return slot.own_memory;
    case MessageKind::memory_gradient:
      return sends ? slot.d_own_memory : stage_.memory_gradient_part(index);
  }
  throw LogicError("no such message");
}

}  // namespace red::train
