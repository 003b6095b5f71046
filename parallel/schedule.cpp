// 1F1B over encoder and decoder stages as one chain: a stage does as many forwards ahead as there are stages
// behind it, then one backward for each forward. ZB-H1 keeps that order and puts weight gradients off. Sends
// come right after the compute that made them and are not waited for, receives right before the compute that
// needs them, so no order of messages can tie a knot.
#include "parallel/schedule.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <string_view>

#include "base/check.hpp"

namespace red::parallel {
namespace {

/// Writes one stage's program: the compute it is told to, and the messages that belong to it.
class StageWriter {
 public:
  StageWriter(const PipelineShape& shape, int stage) : shape_(shape), stage_(stage) {}

  void forward(int micro_batch) {
    if (has_previous()) add(Action::receive_activation, micro_batch, stage_ - 1);
    if (has_memory() && is_decoder()) add(Action::receive_memory, micro_batch, last_encoder());
    add(Action::forward, micro_batch, -1);
    if (has_next()) add(Action::send_activation, micro_batch, stage_ + 1);
    if (has_memory() && stage_ == last_encoder()) {
      // The first decoder stage needs it first.
      for (int s = shape_.encoder_stages; s < shape_.num_stages(); ++s)
        add(Action::send_memory, micro_batch, s);
    }
  }

  /// `pass`: backward, or backward_input alone; what goes back to other stages is ready after either.
  void backward(int micro_batch, Action pass) {
    if (has_next()) add(Action::receive_gradient, micro_batch, stage_ + 1);
    if (has_memory() && stage_ == last_encoder()) {
      // The last decoder stage is through first. The order is also that of the sum, and fixed.
      for (int s = shape_.num_stages() - 1; s >= shape_.encoder_stages; --s) {
        add(Action::receive_memory_gradient, micro_batch, s);
      }
    }
    add(pass, micro_batch, -1);
    if (has_previous()) add(Action::send_gradient, micro_batch, stage_ - 1);
    if (has_memory() && is_decoder()) add(Action::send_memory_gradient, micro_batch, last_encoder());
  }

  void backward_weight(int micro_batch) { add(Action::backward_weight, micro_batch, -1); }

  Program finish() {
    add(Action::reduce_gradients, -1, -1);
    return std::move(program_);
  }

 private:
  void add(Action action, int micro_batch, int peer) { program_.push_back({action, micro_batch, peer}); }
  bool has_memory() const { return shape_.encoder_stages > 0; }
  bool is_decoder() const { return stage_ >= shape_.encoder_stages; }
  int last_encoder() const { return shape_.encoder_stages - 1; }
  /// The residual stream comes from the stage before, except at the start of either stack.
  bool has_previous() const { return stage_ != 0 && stage_ != shape_.encoder_stages; }
  bool has_next() const { return stage_ != last_encoder() && stage_ != shape_.num_stages() - 1; }

  PipelineShape shape_;
  int stage_;
  Program program_;
};

void check(const PipelineShape& shape) {
  RED_CHECK(shape.encoder_stages >= 0 && shape.decoder_stages >= 1 && shape.num_micro_batches >= 1,
            "encoder_stages {} decoder_stages {} micro-batches {}", shape.encoder_stages,
            shape.decoder_stages, shape.num_micro_batches);
}

/// The forwards of 1F1B; backward(writer, i) writes what a schedule has in the place of backward i.
template <class Backward>
Program write_stage(const PipelineShape& shape, int stage, const Backward& backward) {
  StageWriter writer(shape, stage);
  const int num_micro_batches = shape.num_micro_batches;
  const int num_ahead = std::min(shape.num_stages() - stage - 1, num_micro_batches);
  for (int i = 0; i < num_ahead; ++i) writer.forward(i);
  for (int i = 0; i < num_micro_batches; ++i) {
    if (i + num_ahead < num_micro_batches) writer.forward(i + num_ahead);
    backward(writer, i);
  }
  return writer.finish();
}

std::string_view name_of(Action action) {
  switch (action) {
    case Action::forward:
      return "forward";
    case Action::backward:
      return "backward";
    case Action::backward_input:
      return "backward_input";
    case Action::backward_weight:
      return "backward_weight";
    case Action::send_activation:
      return "send_activation";
    case Action::receive_activation:
      return "receive_activation";
    case Action::send_memory:
      return "send_memory";
    case Action::receive_memory:
      return "receive_memory";
    case Action::send_gradient:
      return "send_gradient";
    case Action::receive_gradient:
      return "receive_gradient";
    case Action::send_memory_gradient:
      return "send_memory_gradient";
    case Action::receive_memory_gradient:
      return "receive_memory_gradient";
    case Action::reduce_gradients:
      return "reduce_gradients";
  }
  return "?";
}

}  // namespace

std::vector<Program> one_forward_one_backward(const PipelineShape& shape) {
  check(shape);
  std::vector<Program> programs;
  programs.reserve(static_cast<std::size_t>(shape.num_stages()));
  for (int stage = 0; stage < shape.num_stages(); ++stage) {
    programs.push_back(write_stage(shape, stage, [](StageWriter& writer, int micro_batch) {
      writer.backward(micro_batch, Action::backward);
    }));
  }
  return programs;
}

std::vector<Program> zero_bubble_h1(const PipelineShape& shape) {
  check(shape);
  const int last = shape.num_micro_batches - 1;
  std::vector<Program> programs;
  programs.reserve(static_cast<std::size_t>(shape.num_stages()));
  for (int stage = 0; stage < shape.num_stages(); ++stage) {
    programs.push_back(write_stage(shape, stage, [=](StageWriter& writer, int micro_batch) {
      if (stage == 0) return writer.backward(micro_batch, Action::backward);
      writer.backward(micro_batch, Action::backward_input);
      if (micro_batch >= stage) writer.backward_weight(micro_batch - stage);
      if (micro_batch < last) return;
      for (int i = std::max(0, last - stage + 1); i <= last; ++i) writer.backward_weight(i);
    }));
  }
  return programs;
}

std::vector<Program> make_programs(PipelineSchedule schedule, const PipelineShape& shape) {
  switch (schedule) {
    case PipelineSchedule::one_forward_one_backward:
      return one_forward_one_backward(shape);
    case PipelineSchedule::zero_bubble_h1:
      return zero_bubble_h1(shape);
  }
  throw LogicError("no such schedule");
}

std::vector<Program> forward_only(const PipelineShape& shape) {
  std::vector<Program> programs = one_forward_one_backward(shape);
  for (Program& program : programs) {
    std::erase_if(program, [](const Instruction& instruction) {
      switch (instruction.action) {
        case Action::forward:
        case Action::send_activation:
        case Action::receive_activation:
        case Action::send_memory:
        case Action::receive_memory:
          return false;
        default:
          return true;
      }
    });
  }
  return programs;
}

int max_in_flight(const Program& program) {
  std::set<int> in_flight;
  std::size_t most = 0;
  for (const Instruction& instruction : program) {
    if (instruction.action == Action::forward) in_flight.insert(instruction.micro_batch);
    most = std::max(most, in_flight.size());
    if (instruction.action == Action::backward || instruction.action == Action::backward_weight) {
      in_flight.erase(instruction.micro_batch);
    }
  }
  return static_cast<int>(most);
}

std::string_view name_of(PipelineSchedule schedule) {
  return schedule == PipelineSchedule::zero_bubble_h1 ? "zb_h1" : "1f1b";
}

bool splits_backward(const Program& program) {
  return std::any_of(program.begin(), program.end(), [](const Instruction& instruction) {
    return instruction.action == Action::backward_input;
  });
}

std::string to_string(const Instruction& instruction) {
  std::string text(name_of(instruction.action));
  if (instruction.micro_batch >= 0) text += fmt::format(" of micro-batch {}", instruction.micro_batch);
  if (instruction.peer >= 0) {
    text += fmt::format(" {} stage {}", text.starts_with("send") ? "to" : "from", instruction.peer);
  }
  return text;
}

}  // namespace red::parallel
