#include "train/pipeline_executor.hpp"

#include <algorithm>
#include <array>

#include "base/check.hpp"
#include "base/watch.hpp"

namespace red::train {

using parallel::Action;
using parallel::Instruction;
using parallel::MessageKind;

namespace {

/// Whoever receives it waits for this.
std::string_view what_of(MessageKind kind) {
  static constexpr std::array<std::string_view, parallel::kNumMessageKinds> messages = {
      "activations of the stage before", "the encoder's output", "gradients of the stage behind",
      "gradients of the encoder's output"};
  return messages[static_cast<std::size_t>(kind)];
}

/// What name_of() gives is a literal, and ends with a zero.
const char* literal_of(parallel::Action action) {
  return parallel::name_of(action).data();
}

}  // namespace

PipelineExecutor::PipelineExecutor(model::StageGroup& stages, const parallel::PipelineShape& shape,
                                   parallel::Communicator& pipeline, const model::TensorAxis& tensor)
    : stages_(stages), shape_(shape), pipeline_(pipeline), tensor_(tensor), slots_(stages.num_chunks()) {
  times_.compute_s.resize(stages.num_chunks());
  for (int chunk = 0; chunk < stages.num_chunks(); ++chunk)
    slots_[chunk].resize(stages.chunk(chunk).num_slots());
}

void PipelineExecutor::run(const parallel::Program& program, std::span<const data::MicroBatch> batches,
                           model::ForwardMode mode, PhaseTimer& timer) {
  for (auto& slots : slots_) {
    for (SlotState& slot : slots) slot.micro_batch = -1;
  }
  activation_.instruction = memory_.instruction = 0;
  num_micro_batches_ = static_cast<int>(batches.size());
  std::fill(times_.compute_s.begin(), times_.compute_s.end(), parallel::StageCost{0.0, 0.0, 0.0});
  const auto begin = PhaseTimer::Clock::now();
  watch::Activity activity("pipeline");
  for (std::size_t i = 0; i < program.size(); ++i) {
    const Instruction& instruction = program[i];
    if (mode == model::ForwardMode::train) post_ahead(program, i, batches);
    activity.now(
        {literal_of(instruction.action), instruction.micro_batch, instruction.chunk, instruction.peer});
    if (instruction.micro_batch >= 0) load(instruction, batches);
    const double from = trace_ != nullptr ? parallel::TraceLog::now() : 0.0;
    execute(instruction, mode, timer);
    if (trace_ != nullptr)
      trace_->slice("pipeline", parallel::to_string(instruction), from, parallel::TraceLog::now());
  }
  activity.now({"the last sends"});
  timer.measure(Phase::pipeline_wait, [&] {
    for (auto& slots : slots_) {
      for (SlotState& slot : slots) finish_sends(slot);
    }
  });
  times_.elapsed_s = PhaseTimer::seconds_since(begin);
}

/// The first instruction that names a micro-batch gives it its slot in that chunk.
void PipelineExecutor::load(const Instruction& instruction, std::span<const data::MicroBatch> batches) {
  SlotState& slot = state_of(instruction);
  const int micro_batch = instruction.micro_batch;
  if (slot.micro_batch == micro_batch) return;
  RED_CHECK(slot.micro_batch < micro_batch, "slot {} of chunk {} still holds micro-batch {}",
            slot_of(instruction), instruction.chunk, slot.micro_batch);
  finish_sends(slot);
  model::Stage& stage = stage_of(instruction);
  stage.load(slot_of(instruction), batches[micro_batch]);
  slot.micro_batch = micro_batch;
  if (stage.borrows_memory())
    stage.borrow_memory(slot_of(instruction), stages_.chunk(0).slot(slot_of(micro_batch, 0)));
}

/// Of each kind one at a time, in the program's order: so messages of one tag are received in the order in
/// which they are sent.
void PipelineExecutor::post_ahead(const parallel::Program& program, std::size_t now,
                                  std::span<const data::MicroBatch> batches) {
  for (const auto& [ahead, action] :
       {std::pair{&activation_, Action::receive_activation}, {&memory_, Action::receive_memory}}) {
    if (ahead->posted) continue;
    std::size_t& next = ahead->instruction;
    for (next = std::max(next, now); next < program.size() && program[next].action != action;) ++next;
    if (next == program.size()) continue;
    ahead->request = begin_receive(program[next], arrival_of(program[next], batches));
    ahead->posted = true;
  }
}

Tensor PipelineExecutor::arrival_of(const Instruction& x, std::span<const data::MicroBatch> batches) {
  const model::Stage& stage = stage_of(x);
  const data::MicroBatch& batch = batches[x.micro_batch];
  const int64_t encoder_tokens = batch.encoder.num_tokens(), decoder_tokens = batch.decoder.num_tokens();
  if (x.action == Action::receive_memory) return stage.memory_arrival(encoder_tokens);
  return stage.activation_arrival(stage.placement().has_encoder_part() ? encoder_tokens : decoder_tokens);
}

void PipelineExecutor::finish_sends(SlotState& slot) {
  for (parallel::Request& request : slot.sends) pipeline_.wait(request, "send to a neighbouring stage");
  slot.sends.clear();
}

/// Waits inside a pass, for tensor neighbours and for weights, count as communication.
template <class Compute>
void PipelineExecutor::compute(Phase phase, double& chunk_s, PhaseTimer& timer, const Compute& body) {
  const double before = tensor_.wait_seconds();
  chunk_s += timer.measure(phase, body);
  const double waited = tensor_.wait_seconds() - before;
  timer.add(phase, -waited);
  timer.add(Phase::communication, waited);
}

void PipelineExecutor::execute(const Instruction& instruction, model::ForwardMode mode, PhaseTimer& timer) {
  const bool last = instruction.micro_batch + 1 == num_micro_batches_;
  parallel::StageCost& chunk_s = times_.compute_s[instruction.chunk];
  switch (instruction.action) {
    case Action::forward:
      return compute(Phase::forward, chunk_s.forward, timer, [&] { forward(instruction, mode); });
    case Action::backward:
      return compute(Phase::backward, chunk_s.backward_input, timer, [&] {
        stage_of(instruction).backward(slot_of(instruction), last);
        hand_back(instruction);
      });
    case Action::backward_input:
      return compute(Phase::backward, chunk_s.backward_input, timer, [&] {
        stage_of(instruction).backward_input(slot_of(instruction));
        hand_back(instruction);
      });
    case Action::backward_weight:
      return compute(Phase::backward, chunk_s.backward_weight, timer,
                     [&] { stage_of(instruction).backward_weight(slot_of(instruction), last); });
    case Action::reduce_gradients:  // the caller's next step
      return;
    default:
      break;
  }
  const parallel::MessageRule* rule = parallel::rule_of(instruction.action);
  RED_CHECK(rule != nullptr, "this executor cannot run {}", parallel::to_string(instruction));
  if (instruction.action == rule->send) return send(instruction, rule->kind, mode);
  timer.measure(Phase::pipeline_wait, [&] { receive(instruction, rule->kind, mode); });
}

model::Stage* PipelineExecutor::local_previous(int chunk) {
  const bool encoder = stages_.chunk(chunk).placement().has_encoder_part();
  const int stages_of_stack = encoder ? shape_.encoder_stages : shape_.decoder_stages;
  return chunk > 0 && stages_of_stack == 1 ? &stages_.chunk(chunk - 1) : nullptr;
}

void PipelineExecutor::forward(const Instruction& x, model::ForwardMode mode) {
  if (model::Stage* previous = local_previous(x.chunk))
    stage_of(x).take_activation(slot_of(x), previous->slot(slot_of(x.micro_batch, x.chunk - 1)));
  stage_of(x).forward(slot_of(x), mode);
}

/// At once: the slot of the chunk before lives longer than this one's.
void PipelineExecutor::hand_back(const Instruction& x) {
  if (model::Stage* previous = local_previous(x.chunk))
    stage_of(x).hand_gradient_back(slot_of(x), previous->slot(slot_of(x.micro_batch, x.chunk - 1)));
}

/// Finished when the slot is needed again.
void PipelineExecutor::send(const Instruction& x, MessageKind kind, model::ForwardMode mode) {
  SlotState& slot = state_of(x);
  const int peer = shape_.stage_of(x.peer);
  slot.sends.push_back(pipeline_.send(tensor_of(x, kind, true), peer, parallel::tag_of(kind, x.chunk)));
  if (kind != MessageKind::activation || mode != model::ForwardMode::train) return;
  const int tag = parallel::tag_of(MessageKind::gradient, shape_.chunk_of(x.peer));
  slot.gradient = pipeline_.receive(tensor_of(x, MessageKind::gradient, false), peer, tag);
}

parallel::Request PipelineExecutor::begin_receive(const Instruction& x, const Tensor& target) {
  const int tag = parallel::tag_of(parallel::rule_of(x.action)->kind, shape_.chunk_of(x.peer));
  return pipeline_.receive(target, shape_.stage_of(x.peer), tag);
}

void PipelineExecutor::finish(Ahead& ahead, std::string_view what) {
  pipeline_.wait(ahead.request, what);
  ahead.posted = false;
}

/// Waits for it.
void PipelineExecutor::receive(const Instruction& x, MessageKind kind, model::ForwardMode mode) {
  const std::string_view what = what_of(kind);
  if (kind == MessageKind::gradient) return pipeline_.wait(state_of(x).gradient, what);
  model::Stage& stage = stage_of(x);
  if (mode == model::ForwardMode::train && kind == MessageKind::activation) {
    finish(activation_, what);
    return stage.take_arrived_activation(slot_of(x));
  }
  if (mode == model::ForwardMode::train && kind == MessageKind::memory) {
    finish(memory_, what);
    return stage.take_arrived_memory(slot_of(x));
  }
  parallel::Request request = begin_receive(x, tensor_of(x, kind, false));
  pipeline_.wait(request, what);
  if (kind == MessageKind::memory_gradient) stage.add_memory_gradient_part(slot_of(x));
}

Tensor PipelineExecutor::tensor_of(const Instruction& x, MessageKind kind, bool sends) {
  model::Stage& stage = stage_of(x);
  model::Stage::Slot& slot = stage.slot(slot_of(x));
  const bool encoder = stage.placement().has_encoder_part();
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
      return sends ? slot.d_own_memory : stage.memory_gradient_part(slot_of(x));
  }
  throw LogicError("no such message");
}

}  // namespace red::train
