// Writes one stage's program: the compute it is told to, and the messages that belong to it. Sends come right
// after the compute that made them and are not waited for, receives right before the compute that needs them,
// so no order of messages can tie a knot. Neighbouring chunks on one stage need no message.
#pragma once

#include <vector>

#include "parallel/schedule.hpp"

namespace red::parallel {

class ProgramWriter {
 public:
  ProgramWriter(const PipelineShape& shape, int stage)
      : shape_(shape), stage_(stage), next_part_(static_cast<std::size_t>(shape.num_micro_batches), -1) {}

  void forward(int micro_batch, int chunk = 0);
  /// `pass`: backward, or backward_input alone; what goes back to other stages is ready after either.
  void backward(int micro_batch, Action pass, int chunk = 0);
  void backward_weight(int micro_batch) { add(Action::backward_weight, micro_batch, -1, 0); }
  /// On the last encoder stage: all parts of the gradient of the encoder's output down to that of virtual
  /// stage `from` which have not been received yet. backward() receives the rest.
  void receive_memory_gradients(int micro_batch, int from);
  Program finish();

 private:
  void add(Action action, int micro_batch, int peer, int chunk) {
    program_.push_back({action, micro_batch, peer, chunk});
  }
  bool has_memory() const { return shape_.encoder_stages > 0; }
  bool is_remote(int virtual_stage) const { return shape_.stage_of(virtual_stage) != stage_; }
  /// The residual stream comes from the virtual stage before, except at the start of either stack.
  bool has_previous(int at) const { return at != 0 && at != shape_.first_decoder() && is_remote(at - 1); }
  bool has_next(int at) const {
    return at != shape_.last_encoder() && at != shape_.num_virtual_stages() - 1 && is_remote(at + 1);
  }

  PipelineShape shape_;
  int stage_;
  std::vector<int> next_part_;  // by micro-batch: virtual stage of the next part; -1: the first
  Program program_;
};

/// Throws LogicError when there is no such pipeline.
void check_shape(const PipelineShape& shape);

}  // namespace red::parallel
