// Schedules under the strictest rules of messages: a send ends when its receive is posted, nothing is kept on
// the way, and a stage waits for what a slot sent before the slot is used again. Receives are posted where
// the executor posts them: a gradient's when the activation is sent, all others when they are waited for. (In
// training it posts those of activations and of the encoder's output earlier, in the same order.)
// What ends so ends over MPI whatever the messages' length, and over NCCL (docs/adr/0021).
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <tuple>
#include <utility>
#include <vector>

#include "parallel/pipeline_topology.hpp"
#include "parallel/pipelines.hpp"

namespace red::parallel {
namespace {

class Rendezvous {
 public:
  Rendezvous(const PipelineShape& shape, const std::vector<Program>& programs, bool trains = true)
      : shape_(shape), programs_(programs), trains_(trains), stages_(programs.size()) {
    for (std::size_t s = 0; s < programs.size(); ++s) {
      stages_[s].slots.resize(static_cast<std::size_t>(shape.virtual_stages));
      for (int chunk = 0; chunk < shape.virtual_stages; ++chunk)
        stages_[s].slots[static_cast<std::size_t>(chunk)].resize(
            static_cast<std::size_t>(std::max(1, max_in_flight(programs[s], chunk))));
    }
  }

  /// Whether all programs come to their ends, with everything received.
  bool ends() {
    for (bool moved = true; moved;) {
      moved = false;
      for (int s = 0; s < shape_.num_stages(); ++s) {
        while (step(s)) moved = true;
      }
    }
    for (std::size_t s = 0; s < stages_.size(); ++s) {
      if (stages_[s].next != programs_[s].size()) return false;
    }
    return std::all_of(channels_.begin(), channels_.end(),
                       [](const auto& c) { return c.second.posted == c.second.micro_batches.size(); });
  }

 private:
  using Place = std::tuple<MessageKind, int, int>;  ///< kind, from, to: virtual stages
  struct Channel {
    std::vector<int> micro_batches;  ///< sent
    std::size_t posted = 0;          ///< receives
    std::size_t received = 0;
  };
  struct Slot {
    int micro_batch = -1;
    std::vector<std::pair<Place, std::size_t>> sends;
  };
  struct Stage {
    std::size_t next = 0;
    bool has_posted = false;               ///< the receive that is next
    std::vector<std::vector<Slot>> slots;  ///< by chunk
  };

  /// Runs the stage's next instruction, if it can.
  bool step(int s) {
    Stage& stage = stages_[static_cast<std::size_t>(s)];
    const Program& program = programs_[static_cast<std::size_t>(s)];
    if (stage.next == program.size()) return false;
    const Instruction& x = program[stage.next];
    if (x.micro_batch >= 0) {
      auto& slots = stage.slots[static_cast<std::size_t>(x.chunk)];
      Slot& slot = slots[static_cast<std::size_t>(x.micro_batch) % slots.size()];
      if (slot.micro_batch != x.micro_batch && !all_received(slot)) return false;
      slot.micro_batch = x.micro_batch;
      if (!exchange(s, x, slot)) return false;
    }
    ++stage.next;
    stage.has_posted = false;
    return true;
  }

  bool all_received(Slot& slot) {
    const auto received = [&](const auto& send) { return channels_[send.first].posted > send.second; };
    if (!std::all_of(slot.sends.begin(), slot.sends.end(), received)) return false;
    slot.sends.clear();
    return true;
  }

  bool exchange(int s, const Instruction& x, Slot& slot) {
    const MessageRule* rule = rule_of(x.action);
    if (rule == nullptr) return true;
    const int own = shape_.virtual_stage(s, x.chunk);
    if (x.action == rule->send) {
      const Place place{rule->kind, own, x.peer};
      slot.sends.emplace_back(place, channels_[place].micro_batches.size());
      channels_[place].micro_batches.push_back(x.micro_batch);
      if (trains_ && rule->kind == MessageKind::activation)
        ++channels_[{MessageKind::gradient, x.peer, own}].posted;
      return true;
    }
    Channel& from = channels_[{rule->kind, x.peer, own}];
    bool& has_posted = stages_[static_cast<std::size_t>(s)].has_posted;
    if (!std::exchange(has_posted, true) && rule->kind != MessageKind::gradient) ++from.posted;
    if (from.received == from.micro_batches.size()) return false;
    EXPECT_EQ(from.micro_batches[from.received], x.micro_batch) << name_of(shape_);
    ++from.received;
    return true;
  }

  PipelineShape shape_;
  const std::vector<Program>& programs_;
  bool trains_;
  std::vector<Stage> stages_;
  std::map<Place, Channel> channels_;
};

TEST(Rendezvous, EveryScheduleEnds) {
  int count = 0;
  for (const PipelineShape& shape : all_shapes(6, 6, 16)) {
    for (const PipelineSchedule schedule : kSchedules) {
      EXPECT_TRUE(Rendezvous(shape, make_programs(schedule, shape)).ends()) << name_of(shape);
      ++count;
    }
    EXPECT_TRUE(Rendezvous(shape, forward_only(shape), false).ends()) << "forward only, " << name_of(shape);
  }
  EXPECT_GT(count, 1000);
}

TEST(Rendezvous, EveryInterleavedScheduleEnds) {
  for (const int chunks : {2, 3}) {
    for (const PipelineShape& shape : interleaved_shapes(4, 4, 12, chunks, 3))
      EXPECT_TRUE(Rendezvous(shape, interleaved(shape)).ends()) << name_of(shape);
  }
}

// Two stages that each wait for the other's message first.
TEST(Rendezvous, ACircleIsFound) {
  const PipelineShape shape{.decoder_stages = 2};
  std::vector<Program> programs = one_forward_one_backward(shape);
  const auto sends = std::find_if(programs[0].begin(), programs[0].end(),
                                  [](const Instruction& x) { return x.action == Action::send_activation; });
  const auto waits = std::find_if(programs[0].begin(), programs[0].end(),
                                  [](const Instruction& x) { return x.action == Action::receive_gradient; });
  ASSERT_NE(sends, programs[0].end());
  ASSERT_NE(waits, programs[0].end());
  std::iter_swap(sends, waits);
  EXPECT_FALSE(Rendezvous(shape, programs).ends());
}

}  // namespace
}  // namespace red::parallel
