#include "train/pipeline_executor.hpp"

#include <algorithm>

#include "parallel/message_tags.hpp"

namespace red::train {

using parallel::Action;
using parallel::Instruction;

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

void PipelineExecutor::send(int micro_batch, const Tensor& x, int peer, int tag) {
  sends_[slot_of(micro_batch)].push_back(pipeline_.send(x, peer, tag));
}

void PipelineExecutor::receive(const Tensor& x, int peer, int tag, std::string_view what, PhaseTimer& timer) {
  timer.measure(Phase::pipeline_wait, [&] {
    parallel::Request request = pipeline_.receive(x, peer, tag);
    pipeline_.wait(request, what);
  });
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
  const int micro_batch = instruction.micro_batch, peer = instruction.peer;
  if (instruction.action == Action::reduce_gradients) return;  // the caller's next step
  const int slot_index = slot_of(micro_batch);
  model::Stage::Slot& slot = stage_.slot(slot_index);
  const bool encoder = stage_.placement().has_encoder_part();
  switch (instruction.action) {
    case Action::forward:
      compute(Phase::forward, timer, [&] { stage_.forward(slot_index, mode); });
      break;
    case Action::backward:
      compute(Phase::backward, timer, [&] { stage_.backward(slot_index); });
      break;
    case Action::backward_input:
      compute(Phase::backward, timer, [&] { stage_.backward_input(slot_index); });
      break;
    case Action::backward_weight:
      compute(Phase::backward, timer, [&] { stage_.backward_weight(slot_index); });
      break;
    case Action::send_activation:
      send(micro_batch, encoder ? slot.encoder_output : slot.decoder_output, peer, parallel::kTagActivation);
      break;
    case Action::receive_activation:
      receive(encoder ? slot.encoder_input : slot.decoder_input, peer, parallel::kTagActivation,
              "activations of the stage before", timer);
      break;
    case Action::send_memory:
      send(micro_batch, slot.own_memory, peer, parallel::kTagMemory);
      break;
    case Action::receive_memory:
      receive(slot.own_memory, peer, parallel::kTagMemory, "the encoder's output", timer);
      break;
    case Action::send_gradient:
      send(micro_batch, encoder ? slot.d_encoder_input : slot.d_decoder_input, peer, parallel::kTagGradient);
      break;
    case Action::receive_gradient:
      receive(encoder ? slot.d_encoder_output : slot.d_decoder_output, peer, parallel::kTagGradient,
              "gradients of the stage behind", timer);
      break;
    case Action::send_memory_gradient:
      send(micro_batch, slot.d_own_memory, peer, parallel::kTagMemoryGradient);
      break;
    case Action::receive_memory_gradient:
      receive(stage_.memory_gradient_part(slot_index), peer, parallel::kTagMemoryGradient,
              "gradients of the encoder's output", timer);
      stage_.add_memory_gradient_part(slot_index);
      break;
    case Action::reduce_gradients:
      throw LogicError("this executor cannot run {}", parallel::to_string(instruction));
  }
}

}  // namespace red::train
