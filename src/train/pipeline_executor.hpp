// Runs a schedule's program on the stages of a rank: computes, sends and receives as the instructions say,
// whatever schedule made them. Micro-batch i uses slot i modulo the number of slots of its chunk; sends are
// posted and finished when their slot is needed again or at the end. Whoever gets an activation will send its
// gradient back: that receive is posted with the send, so that no sender of gradients has to wait for us. In
// training the next activation and encoder's output are received under what comes before their pass.
#pragma once

#include <span>
#include <vector>

#include "model/stage_group.hpp"
#include "parallel/communicator.hpp"
#include "parallel/pipeline_topology.hpp"
#include "parallel/simulator.hpp"
#include "train/phase_timer.hpp"

namespace red::train {

class PipelineExecutor {
 public:
  /// pipeline: rank = stage. Of `shape` the number of micro-batches does not matter.
  PipelineExecutor(model::StageGroup& stages, const parallel::PipelineShape& shape,
                   parallel::Communicator& pipeline, const model::TensorAxis& tensor);

  /// batches[i] is micro-batch i, the same on every stage of the pipeline.
  void run(const parallel::Program& program, std::span<const data::MicroBatch> batches,
           model::ForwardMode mode, PhaseTimer& timer);

  /// Writes down when each instruction began and ended; null: nothing is.
  void trace(parallel::TraceLog* log) { trace_ = log; }

  /// Where the last run's time went: compute by chunk, all micro-batches together, waits for tensor
  /// neighbours included (backward passes in one count as backward_input), and the whole of it.
  struct Times {
    std::vector<parallel::StageCost> compute_s;
    double elapsed_s = 0.0;
  };
  const Times& times() const { return times_; }

  int slot_of(int micro_batch, int chunk = 0) const { return micro_batch % stages_.chunk(chunk).num_slots(); }

 private:
  /// What goes on in a slot of a chunk.
  struct SlotState {
    int micro_batch = -1;  ///< loaded; -1: none
    std::vector<parallel::Request> sends;
    parallel::Request gradient;  ///< receive
  };

  /// The next receive of one kind, posted before its instruction.
  struct Ahead {
    std::size_t instruction = 0;  ///< its number in the program
    bool posted = false;          ///< its message may be empty, and its request too
    parallel::Request request;
  };

  void post_ahead(const parallel::Program& program, std::size_t now,
                  std::span<const data::MicroBatch> batches);
  Tensor arrival_of(const parallel::Instruction& instruction, std::span<const data::MicroBatch> batches);
  void load(const parallel::Instruction& instruction, std::span<const data::MicroBatch> batches);
  void send(const parallel::Instruction& instruction, parallel::MessageKind kind, model::ForwardMode mode);
  parallel::Request begin_receive(const parallel::Instruction& instruction, const Tensor& target);
  void finish(Ahead& ahead, std::string_view what);
  void receive(const parallel::Instruction& instruction, parallel::MessageKind kind, model::ForwardMode mode);
  /// What a message of this kind carries, at its sender or where it is received.
  Tensor tensor_of(const parallel::Instruction& instruction, parallel::MessageKind kind, bool sends);
  void finish_sends(SlotState& slot);
  void forward(const parallel::Instruction& instruction, model::ForwardMode mode);
  /// Gives the gradient to the chunk before, where that is on this rank too.
  void hand_back(const parallel::Instruction& instruction);
  /// The chunk that the residual stream comes from without a message; null: there is none.
  model::Stage* local_previous(int chunk);
  model::Stage& stage_of(const parallel::Instruction& x) { return stages_.chunk(x.chunk); }
  int slot_of(const parallel::Instruction& x) const { return slot_of(x.micro_batch, x.chunk); }
  SlotState& state_of(const parallel::Instruction& x) { return slots_[x.chunk][slot_of(x)]; }
  template <class Compute>
  void compute(Phase phase, double& chunk_s, PhaseTimer& timer, const Compute& body);
  void execute(const parallel::Instruction& instruction, model::ForwardMode mode, PhaseTimer& timer);

  model::StageGroup& stages_;
  parallel::PipelineShape shape_;
  parallel::Communicator& pipeline_;
  const model::TensorAxis& tensor_;
  int num_micro_batches_ = 0;                  ///< of the run
  std::vector<std::vector<SlotState>> slots_;  ///< by chunk
  Ahead activation_, memory_;                  ///< in training
  Times times_;
  parallel::TraceLog* trace_ = nullptr;
};

}  // namespace red::train
