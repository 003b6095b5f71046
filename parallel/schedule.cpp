// 1F1B over encoder and decoder stages as one chain: a stage does as many forwards ahead as there are stages
// behind it, then one backward for each forward. ZB-H1 keeps that order and puts weight gradients off.
#include "parallel/schedule.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <string_view>

#include "base/check.hpp"
#include "parallel/program_writer.hpp"

namespace red::parallel {
namespace {

void check_one_chunk(const PipelineShape& shape) {
  check_shape(shape);
  RED_CHECK(shape.virtual_stages == 1, "virtual_stages {}", shape.virtual_stages);
}

/// The forwards of 1F1B; backward(writer, i) writes what a schedule has in the place of backward i.
template <class Backward>
Program write_stage(const PipelineShape& shape, int stage, const Backward& backward) {
  ProgramWriter writer(shape, stage);
  const int num_micro_batches = shape.num_micro_batches;
  const int num_ahead = std::min(shape.num_stages() - stage - 1, num_micro_batches);
  for (int i = 0; i < num_ahead; ++i) writer.forward(i);
  for (int i = 0; i < num_micro_batches; ++i) {
    if (i + num_ahead < num_micro_batches) writer.forward(i + num_ahead);
    backward(writer, i);
  }
  return writer.finish();
}

}  // namespace

int PipelineShape::stage_of(int virtual_stage) const {
  if (!is_decoder(virtual_stage)) return virtual_stage % encoder_stages;
  return encoder_stages + (virtual_stage - first_decoder()) % decoder_stages;
}

int PipelineShape::chunk_of(int virtual_stage) const {
  if (!is_decoder(virtual_stage)) return virtual_stage / encoder_stages;
  return (virtual_stage - first_decoder()) / decoder_stages;
}

int PipelineShape::virtual_stage(int stage, int chunk) const {
  if (stage < encoder_stages) return chunk * encoder_stages + stage;
  return first_decoder() + chunk * decoder_stages + stage - encoder_stages;
}

std::vector<Program> one_forward_one_backward(const PipelineShape& shape) {
  check_one_chunk(shape);
  std::vector<Program> programs;
  programs.reserve(static_cast<std::size_t>(shape.num_stages()));
  for (int stage = 0; stage < shape.num_stages(); ++stage) {
    programs.push_back(write_stage(shape, stage, [](ProgramWriter& writer, int micro_batch) {
      writer.backward(micro_batch, Action::backward);
    }));
  }
  return programs;
}

std::vector<Program> zero_bubble_h1(const PipelineShape& shape) {
  check_one_chunk(shape);
  const int last = shape.num_micro_batches - 1;
  std::vector<Program> programs;
  programs.reserve(static_cast<std::size_t>(shape.num_stages()));
  for (int stage = 0; stage < shape.num_stages(); ++stage) {
    programs.push_back(write_stage(shape, stage, [=](ProgramWriter& writer, int micro_batch) {
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
    case PipelineSchedule::interleaved:
      return interleaved(shape);
  }
  throw LogicError("no such schedule");
}

std::vector<Program> decoder_only(const PipelineShape& shape) {
  std::vector<Program> programs = forward_only(shape);
  for (int stage = 0; stage < shape.encoder_stages; ++stage) programs[stage].clear();
  for (Program& program : programs)
    std::erase_if(program, [](const Instruction& x) { return x.action == Action::receive_memory; });
  return programs;
}

std::vector<Program> forward_only(const PipelineShape& shape) {
  std::vector<Program> programs =
      shape.virtual_stages == 1 ? one_forward_one_backward(shape) : interleaved(shape);
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

Program first_micro_batches(const Program& program, int num_micro_batches) {
  Program first = program;
  std::erase_if(first, [=](const Instruction& x) { return x.micro_batch >= num_micro_batches; });
  return first;
}

int max_in_flight(const Program& program, int chunk) {
  std::set<int> in_flight;
  std::size_t most = 0;
  for (const Instruction& instruction : program) {
    if (instruction.chunk != chunk) continue;
    if (instruction.action == Action::forward) in_flight.insert(instruction.micro_batch);
    most = std::max(most, in_flight.size());
    if (instruction.action == Action::backward || instruction.action == Action::backward_weight) {
      in_flight.erase(instruction.micro_batch);
    }
  }
  return static_cast<int>(most);
}

std::string_view name_of(PipelineSchedule schedule) {
  switch (schedule) {
    case PipelineSchedule::one_forward_one_backward:
      return "1f1b";
    case PipelineSchedule::zero_bubble_h1:
      return "zb_h1";
    case PipelineSchedule::interleaved:
      return "interleaved";
  }
  return "?";
}

bool splits_backward(const Program& program) {
  return std::any_of(program.begin(), program.end(), [](const Instruction& instruction) {
    return instruction.action == Action::backward_input;
  });
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

std::string to_string(const Instruction& instruction) {
  std::string text(name_of(instruction.action));
  if (instruction.micro_batch >= 0) text += fmt::format(" of micro-batch {}", instruction.micro_batch);
  if (instruction.chunk > 0) text += fmt::format(" in chunk {}", instruction.chunk);
  if (instruction.peer >= 0) {
    text += fmt::format(" {} stage {}", text.starts_with("send") ? "to" : "from", instruction.peer);
  }
  return text;
}

}  // namespace red::parallel
