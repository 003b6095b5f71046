// Runs a schedule's program on a stage: computes, sends and receives as the instructions say, whatever
// schedule made them. Micro-batch i uses slot i modulo the number of slots; sends are posted and finished
// when their slot is needed again or at the end.
#pragma once

#include <span>
#include <vector>

#include "model/stage.hpp"
#include "parallel/communicator.hpp"
#include "parallel/pipeline_topology.hpp"
#include "train/phase_timer.hpp"

namespace red::train {

class PipelineExecutor {
 public:
  /// pipeline: rank = stage.
  PipelineExecutor(model::Stage& stage, parallel::Communicator& pipeline, const model::TensorAxis& tensor);

  /// batches[i] is micro-batch i, the same on every stage of the pipeline.
  void run(const parallel::Program& program, std::span<const data::MicroBatch> batches,
           model::ForwardMode mode, PhaseTimer& timer);

  int slot_of(int micro_batch) const { return micro_batch % stage_.num_slots(); }

 private:
  void load(int micro_batch, std::span<const data::MicroBatch> batches);
  void transfer(const parallel::Instruction& instruction, int slot, PhaseTimer& timer);
  /// What a message of this kind carries, at its sender or where it is received.
  Tensor tensor_of(parallel::MessageKind kind, bool sends, int slot);
  void finish_sends(int slot);
  template <class Compute>
  void compute(Phase phase, PhaseTimer& timer, const Compute& body);
  void execute(const parallel::Instruction& instruction, model::ForwardMode mode, PhaseTimer& timer);

  model::Stage& stage_;
  parallel::Communicator& pipeline_;
  const model::TensorAxis& tensor_;
  int num_micro_batches_ = 0;                          ///< of the run
  std::vector<int> loaded_;                            ///< micro-batch in each slot, -1: none
  std::vector<std::vector<parallel::Request>> sends_;  ///< under way, by slot
};

}  // namespace red::train
