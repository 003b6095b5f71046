// Event-driven replay of a schedule. Each stage runs its program on its own clock until a receive finds
// nothing; the send that mends this wakes it. Every instruction is held to what must have run on its stage
// before it, so that a schedule which passes here computes the right thing on real ranks and cannot hang
// there.
#include "parallel/simulator.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "base/check.hpp"
#include "parallel/pipeline_topology.hpp"

namespace red::parallel {
namespace {

constexpr std::size_t kNumActions = static_cast<std::size_t>(Action::reduce_gradients) + 1;

bool is_forward(Action action) {
  const MessageRule* rule = rule_of(action);
  if (rule == nullptr) return action == Action::forward;
  return rule->kind == MessageKind::activation || rule->kind == MessageKind::memory;
}

/// Messages of one kind between two virtual stages, in the order sent.
struct Channel {
  struct Item {
    int micro_batch;
    double arrival;
    std::size_t sent_at;  // index in the sender's program
  };
  std::vector<Item> items;
  std::size_t next = 0;
};

struct StageState {
  std::size_t next = 0;  // in the program
  double clock = 0.0;
  double busy = 0.0;
  std::vector<bool> done;  // by instruction, see Replay::index_of
};

class Replay {
 public:
  Replay(const PipelineShape& shape, const std::vector<Program>& programs, const SimulationCosts& costs,
         Passes passes)
      : topology_(shape), programs_(programs), costs_(costs), passes_(passes) {
    states_.resize(programs.size());
    for (StageState& state : states_)
      state.done.resize(kNumActions * num_indices() * (width() + 1) * num_chunks());
    channels_.resize(kNumMessageKinds * width() * width());
  }

  Simulation run() {
    for (int stage = 0; stage < shape().num_stages(); ++stage) runnable_.push_back(stage);
    while (!runnable_.empty()) {
      const int stage = runnable_.back();
      runnable_.pop_back();
      advance(stage);
    }
    check_all_ended();
    check_all_received();
    check_all_computed();
    return result();
  }

 private:
  const PipelineShape& shape() const { return topology_.shape(); }
  std::size_t width() const { return static_cast<std::size_t>(shape().num_virtual_stages()); }
  std::size_t num_chunks() const { return static_cast<std::size_t>(shape().virtual_stages); }
  StageState& state(int stage) { return states_[static_cast<std::size_t>(stage)]; }
  const Program& program(int stage) const { return programs_[static_cast<std::size_t>(stage)]; }
  /// Between virtual stages.
  Channel& channel(MessageKind kind, int from, int to) {
    const std::size_t row = static_cast<std::size_t>(kind) * width() + static_cast<std::size_t>(from);
    return channels_[row * width() + static_cast<std::size_t>(to)];
  }
  /// Micro-batches, and -1 for what belongs to none.
  std::size_t num_indices() const { return static_cast<std::size_t>(shape().num_micro_batches) + 1; }
  std::size_t index_of(const Instruction& x) const {
    const std::size_t row =
        static_cast<std::size_t>(x.action) * num_indices() + static_cast<std::size_t>(x.micro_batch + 1);
    return (row * (width() + 1) + static_cast<std::size_t>(x.peer + 1)) * num_chunks() +
           static_cast<std::size_t>(x.chunk);
  }
  std::vector<bool>::reference done(int stage, const Instruction& x) {
    return state(stage).done[index_of(x)];
  }

  /// The virtual stage that an instruction is part of.
  int place_of(int stage, const Instruction& x) const { return shape().virtual_stage(stage, x.chunk); }

  [[noreturn]] void fail(int stage, std::size_t at, const std::string& why) const {
    throw LogicError("schedule: stage {}, instruction {} ({}): {}", stage, at, to_string(program(stage)[at]),
                     why);
  }

  /// Runs a stage until its program ends or it has to wait.
  void advance(int stage) {
    StageState& own = state(stage);
    for (; own.next < program(stage).size(); ++own.next) {
      const Instruction& instruction = program(stage)[own.next];
      check_form(stage, instruction);
      const MessageRule* rule = rule_of(instruction.action);
      if (rule == nullptr) {
        check_needs(stage, instruction);
        compute(stage, instruction);
      } else if (rule->send == instruction.action) {
        check_needs(stage, instruction);
        mark(stage, instruction);
        channel(rule->kind, place_of(stage, instruction), instruction.peer)
            .items.push_back({instruction.micro_batch, own.clock + costs_.transfer, own.next});
        runnable_.push_back(shape().stage_of(instruction.peer));
      } else if (!receive(stage, instruction, rule->kind)) {
        return;
      }
    }
  }

  /// Numbers within the pipeline, and a way that exists.
  void check_form(int stage, const Instruction& instruction) const {
    const std::size_t at = states_[static_cast<std::size_t>(stage)].next;
    if (passes_ == Passes::forward_only && !is_forward(instruction.action)) {
      fail(stage, at, "has no place in a schedule of forward passes alone");
    }
    const bool is_reduce = instruction.action == Action::reduce_gradients;
    const int least = is_reduce ? -1 : 0, most = is_reduce ? -1 : shape().num_micro_batches - 1;
    if (instruction.micro_batch < least || instruction.micro_batch > most)
      fail(stage, at, "no such micro-batch");
    const int chunks = is_reduce ? 1 : shape().virtual_stages;
    if (instruction.chunk < 0 || instruction.chunk >= chunks) fail(stage, at, "no such chunk");
    const MessageRule* rule = rule_of(instruction.action);
    if (rule == nullptr) {
      if (instruction.peer != -1) fail(stage, at, "no message, but it names a peer");
      return;
    }
    if (instruction.peer < 0 || instruction.peer >= shape().num_virtual_stages()) {
      fail(stage, at, "no such peer");
    }
    const bool sends = rule->send == instruction.action;
    const int own = place_of(stage, instruction);
    const int from = sends ? own : instruction.peer, to = sends ? instruction.peer : own;
    if (!topology_.connects(rule->kind, from, to)) fail(stage, at, "this pipeline has no such message");
  }

  void check_needs(int stage, const Instruction& instruction) {
    for (const Instruction& needed : topology_.needs(stage, instruction)) {
      if (!done(stage, needed)) {
        fail(stage, state(stage).next, fmt::format("runs before {}", to_string(needed)));
      }
    }
  }

  void mark(int stage, const Instruction& instruction) {
    if (done(stage, instruction)) fail(stage, state(stage).next, "runs a second time");
    done(stage, instruction) = true;
  }

  void compute(int stage, const Instruction& instruction) {
    const StageCost& cost = costs_.stages[static_cast<std::size_t>(place_of(stage, instruction))];
    double time = 0.0;
    const int i = instruction.micro_batch, chunk = instruction.chunk;
    const bool whole = instruction.action == Action::backward;  // = both passes
    if (instruction.action == Action::forward) time += cost.forward;
    if (whole || instruction.action == Action::backward_input) time += cost.backward_input;
    if (whole || instruction.action == Action::backward_weight) time += cost.backward_weight;
    if (whole) {
      mark(stage, {Action::backward_input, i, -1, chunk});
      mark(stage, {Action::backward_weight, i, -1, chunk});
    } else {
      mark(stage, instruction);
    }
    state(stage).clock += time;
    state(stage).busy += time;
  }

  bool receive(int stage, const Instruction& instruction, MessageKind kind) {
    Channel& from = channel(kind, instruction.peer, place_of(stage, instruction));
    if (from.next == from.items.size()) return false;
    const Channel::Item& item = from.items[from.next++];
    if (item.micro_batch != instruction.micro_batch) {
      fail(stage, state(stage).next,
           fmt::format("the next message on this way is of micro-batch {}", item.micro_batch));
    }
    mark(stage, instruction);
    state(stage).clock = std::max(state(stage).clock, item.arrival);
    return true;
  }

  /// A stage that still waits has no partner, or is one of a ring that wait for each other.
  void check_all_ended() {
    std::string waiting;
    for (int stage = 0; stage < shape().num_stages(); ++stage) {
      const std::size_t at = state(stage).next;
      if (at == program(stage).size()) continue;
      const Instruction& receive = program(stage)[at];
      const int peer = shape().stage_of(receive.peer);
      const Instruction send{rule_of(receive.action)->send, receive.micro_batch, place_of(stage, receive),
                             shape().chunk_of(receive.peer)};
      const Program& peers = program(peer);
      if (std::find(peers.begin(), peers.end(), send) == peers.end()) {
        fail(stage, at, fmt::format("has no partner: stage {} never does {}", peer, to_string(send)));
      }
      waiting += fmt::format("{}stage {}, instruction {} ({})", waiting.empty() ? "" : "; ", stage, at,
                             to_string(receive));
    }
    if (!waiting.empty()) throw LogicError("schedule: deadlock: {}", waiting);
  }

  void check_all_received() {
    for (const MessageRule& rule : message_rules()) {
      for (int from = 0; from < shape().num_virtual_stages(); ++from) {
        for (int to = 0; to < shape().num_virtual_stages(); ++to) {
          const Channel& way = channel(rule.kind, from, to);
          if (way.next < way.items.size()) {
            fail(shape().stage_of(from), way.items[way.next].sent_at,
                 fmt::format("has no partner: stage {} never receives it", shape().stage_of(to)));
          }
        }
      }
    }
  }

  void check_all_computed() {
    for (int stage = 0; stage < shape().num_stages(); ++stage) {
      for (int chunk = 0; chunk < shape().virtual_stages; ++chunk) check_all_computed(stage, chunk);
      if (passes_ == Passes::forward_and_backward && !done(stage, {Action::reduce_gradients, -1, -1})) {
        throw LogicError("schedule: stage {}: reduce_gradients is missing", stage);
      }
    }
  }

  void check_all_computed(int stage, int chunk) {
    for (int i = 0; i < shape().num_micro_batches; ++i) {
      for (const Action action : {Action::forward, Action::backward_input, Action::backward_weight}) {
        const Instruction missing{action, i, -1, chunk};
        if ((passes_ == Passes::forward_and_backward || is_forward(action)) && !done(stage, missing)) {
          throw LogicError("schedule: stage {}: {} is missing", stage, to_string(missing));
        }
      }
    }
  }

  Simulation result() const {
    Simulation simulation;
    double total = 0.0;
    for (const StageState& own : states_) {
      simulation.makespan = std::max(simulation.makespan, own.clock);
      simulation.busy.push_back(own.busy);
      total += own.busy;
    }
    for (const double busy : simulation.busy) simulation.wait.push_back(simulation.makespan - busy);
    if (simulation.makespan > 0.0) {
      simulation.bubble = 1.0 - total / (simulation.makespan * static_cast<double>(states_.size()));
    }
    return simulation;
  }

  PipelineTopology topology_;
  const std::vector<Program>& programs_;
  const SimulationCosts& costs_;
  Passes passes_;
  std::vector<StageState> states_;
  std::vector<Channel> channels_;
  std::vector<int> runnable_;  // stages that may get on
};

}  // namespace

Simulation simulate(const PipelineShape& shape, const std::vector<Program>& programs,
                    const SimulationCosts& costs, Passes passes) {
  const auto num_stages = static_cast<std::size_t>(shape.num_stages());
  const auto num_virtual = static_cast<std::size_t>(shape.num_virtual_stages());
  RED_CHECK(programs.size() == num_stages, "programs {} stages {}", programs.size(), num_stages);
  RED_CHECK(costs.stages.size() == num_virtual, "costs {} virtual stages {}", costs.stages.size(),
            num_virtual);
  RED_CHECK(shape.num_micro_batches >= 1, "micro-batches {}", shape.num_micro_batches);
  RED_CHECK(costs.transfer >= 0.0, "transfer {}", costs.transfer);
  return Replay(shape, programs, costs, passes).run();
}

}  // namespace red::parallel
