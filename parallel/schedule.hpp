// A schedule is data: for each stage a list of instructions, made by a pure function from the pipeline's
// shape. One executor runs any list on real ranks (train/pipeline_executor), one simulator replays it with
// costs (parallel/simulator). Encoder stages come first, then decoder stages; the last encoder stage sends
// its output straight to every decoder stage and adds up the gradients that come back (docs/adr/0004). With
// v chunks of layers on each stage the layers of a stack go round its stages v times, as virtual stages.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace red::parallel {

enum class Action {
  forward,          ///< of one micro-batch through the stage's layers
  backward,         ///< both passes below in one
  backward_input,   ///< gradient of the stage's input
  backward_weight,  ///< gradients of the weights, from what backward_input left
  send_activation,  ///< residual stream to virtual stage `peer`
  receive_activation,
  send_memory,  ///< encoder output, from the last encoder stage to each decoder stage, for all its chunks
  receive_memory,
  send_gradient,  ///< gradient of the residual stream to virtual stage `peer`
  receive_gradient,
  send_memory_gradient,     ///< one chunk's gradient of the encoder output to the last encoder stage
  receive_memory_gradient,  ///< adds to what other decoder chunks sent
  reduce_gradients,         ///< all micro-batches are through: the gradients may be reduced
};

struct Instruction {
  Action action = Action::forward;
  int micro_batch = -1;  ///< -1 for reduce_gradients
  int peer = -1;         ///< virtual stage at the other end of a message; -1 for compute
  int chunk = 0;         ///< of the stage that runs it

  bool operator==(const Instruction&) const = default;
};

using Program = std::vector<Instruction>;  ///< of one stage

/// The pipeline's shape. encoder_stages = 0: no messages of encoder output (one stage holds both, or no
/// encoder). A virtual stage is one chunk on one stage: chunk c of encoder stage r of E is number c E + r of
/// the encoder's chain; the decoder's chain follows. With one chunk a virtual stage is a stage.
struct PipelineShape {
  int encoder_stages = 0;
  int decoder_stages = 1;
  int num_micro_batches = 1;
  int virtual_stages = 1;  ///< chunks on each stage

  int num_stages() const { return encoder_stages + decoder_stages; }
  int num_virtual_stages() const { return num_stages() * virtual_stages; }
  int first_decoder() const { return encoder_stages * virtual_stages; }  ///< virtual stage
  int last_encoder() const { return first_decoder() - 1; }               ///< virtual stage; -1: none
  bool is_decoder(int virtual_stage) const { return virtual_stage >= first_decoder(); }
  int stage_of(int virtual_stage) const;
  int chunk_of(int virtual_stage) const;
  int virtual_stage(int stage, int chunk) const;
};

/// 1F1B: stage s of p runs min(p - s - 1, m) forwards, then alternates; programs[s] is stage s's list.
/// Messages are listed where the executor posts them: receives right before their use, sends right after the
/// compute.
std::vector<Program> one_forward_one_backward(const PipelineShape& shape);

/// ZB-H1 (zero bubble, the variant with 1F1B's memory): 1F1B's order of forwards and input gradients, with
/// the weight gradients of stage s put off by s micro-batches, into the time in which 1F1B waits. At most
/// min(p, m) micro-batches hold memory on any stage, as on 1F1B's first; for equal costs of the three passes
/// and m >= p the makespan is 3 m + p - 1 of them. On stage 0 nothing is put off, and backward is one.
std::vector<Program> zero_bubble_h1(const PipelineShape& shape);

/// Interleaved 1F1B over p stages of v chunks: no slower than 1F1B on p stages, where passes cost the same in
/// all chunks and a backward two forwards; without an encoder and with m a multiple of p the bubble is
/// (p - 1) / (v m + p - 1). Each chunk takes the micro-batches in order, forward and backward, so that all
/// sums are those of 1F1B on v times as many stages. In flight on decoder stage r of D are at most (v - 1) D
/// + 2 (D - r - 1) + 1 chunks, on encoder stage r of E as many with E for D and, since the encoder runs ahead
/// of the decoder, 2 v D besides (rarely 3 v D, where it takes that to be no slower than 1F1B).
std::vector<Program> interleaved(const PipelineShape& shape);

/// How a training step is scheduled (key parallel.schedule). Only `interleaved` knows chunks.
enum class PipelineSchedule { one_forward_one_backward, zero_bubble_h1, interleaved };
std::string_view name_of(PipelineSchedule schedule);  ///< "1f1b", "zb_h1", as the key spells it

std::vector<Program> make_programs(PipelineSchedule schedule, const PipelineShape& shape);

/// The forward half of 1F1B with its messages, for evaluation: nothing is kept, one micro-batch is in flight.
std::vector<Program> forward_only(const PipelineShape& shape);

/// The same without the encoder, whose stages do nothing: decoder stages have what they need of its output.
std::vector<Program> decoder_only(const PipelineShape& shape);

/// The program of the first so many micro-batches alone, in the order in which this one takes them.
Program first_micro_batches(const Program& program, int num_micro_batches);

/// Most micro-batches that hold activations of one chunk at once on a stage under this program: those whose
/// forward has begun and whose backward (or backward_weight) is not done.
int max_in_flight(const Program& program, int chunk = 0);

/// True when a backward_input leaves something for a backward_weight to come.
bool splits_backward(const Program& program);

std::string_view name_of(Action action);  ///< a literal
std::string to_string(const Instruction& instruction);

}  // namespace red::parallel
