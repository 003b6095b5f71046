// Who talks to whom in a pipeline of encoder and decoder stages, and what an instruction needs to have run
// before it on its own stage. Written apart from the generators, so that their programs can be held to it.
#pragma once

#include <array>
#include <cstddef>
#include <vector>

#include "parallel/communicator.hpp"
#include "parallel/schedule.hpp"

namespace red::parallel {

enum class MessageKind { activation, memory, gradient, memory_gradient };
inline constexpr std::size_t kNumMessageKinds = 4;

/// The tag of such a message that a chunk sends.
int tag_of(MessageKind kind, int chunk);

/// The two instructions at the ends of a message.
struct MessageRule {
  MessageKind kind;
  Action send, receive;
};

const std::array<MessageRule, kNumMessageKinds>& message_rules();

/// The rule that an action is one end of; null for compute and reduce_gradients.
const MessageRule* rule_of(Action action);

class PipelineTopology {
 public:
  explicit PipelineTopology(const PipelineShape& shape) : shape_(shape) {}

  const PipelineShape& shape() const { return shape_; }

  /// True when messages of this kind go from one virtual stage to the other; false when both are on one
  /// stage.
  bool connects(MessageKind kind, int from, int to) const {
    return precedes(kind, from, to) && shape_.stage_of(from) != shape_.stage_of(to);
  }

  /// Of every message that a step sends from one stage to another, under whichever schedule; without `train`
  /// those of forward passes alone. Ranks are stages.
  std::vector<Route> routes(bool train) const;

  /// What must have run on this stage before the instruction may. A backward counts as its two passes.
  std::vector<Instruction> needs(int stage, const Instruction& instruction) const;

 private:
  /// Something of this kind goes from one virtual stage to the other, by a message or within a stage.
  bool precedes(MessageKind kind, int from, int to) const;
  void add_inputs(const MessageRule& rule, int virtual_stage, int micro_batch,
                  std::vector<Instruction>& needed) const;

  PipelineShape shape_;
};

}  // namespace red::parallel
