// Interleaved 1F1B by list scheduling: an event simulation in units of a chunk's forward pass, a backward
// pass taking two. Each stage takes forwards group by group: as many micro-batches as its stack has stages
// through its first chunk, the same ones through the next chunk, and so on. Backwards, through the chunks the
// other way, are taken as they come. What it takes next, of what can begin first, is up to a policy; a bound
// on the chunks in flight keeps forwards from running away. The order of a run is an order without deadlock.
#include <algorithm>
#include <array>
#include <optional>
#include <tuple>

#include "base/check.hpp"
#include "parallel/program_writer.hpp"

namespace red::parallel {
namespace {

constexpr int kForwardTime = 1, kBackwardTime = 2;

struct Task {
  bool forward = true;
  int chunk = 0;
  int micro_batch = 0;
  int begin = 0;
};

struct Policy {
  bool encoder_forward_first = true;  ///< of a forward and a backward that can begin at once
  bool decoder_forward_first = true;
  /// Of several backwards that of the first group, of the last chunk, or of the first micro-batch.
  enum class Backwards { by_group, by_chunk, by_micro_batch } backwards = Backwards::by_group;

  /// The less, the sooner.
  std::tuple<int, int, int> order_of_backward(int chunk, int micro_batch, int group) const {
    if (backwards == Backwards::by_group) return {micro_batch / group, -chunk, micro_batch};
    if (backwards == Backwards::by_chunk) return {-chunk, micro_batch, 0};
    return {micro_batch, -chunk, 0};
  }
};

struct Timetable {
  int makespan = 0;
  int in_flight = 0;                      ///< most chunks in flight on any stage
  std::vector<std::vector<Task>> stages;  ///< in the order of time

  std::pair<int, int> key() const { return {makespan, in_flight}; }
};

/// Most chunks that a stage may have in flight: on a decoder stage as many as it takes to keep all busy; an
/// encoder stage likewise, and the `ahead` micro-batches that wait for the decoder besides.
int bound_of(const PipelineShape& shape, int stage, int ahead) {
  const auto of_stack = [&](int stages, int behind) {
    return (shape.virtual_stages - 1) * stages + 2 * behind + 1;
  };
  const int encoders = shape.encoder_stages;
  if (stage >= encoders) return of_stack(shape.decoder_stages, shape.num_stages() - stage - 1);
  return of_stack(encoders, encoders - stage - 1) + shape.virtual_stages * ahead;
}

class ListScheduler {
 public:
  ListScheduler(const PipelineShape& shape, const Policy& policy, int ahead)
      : shape_(shape), policy_(policy), ahead_(ahead), stages_(static_cast<std::size_t>(shape.num_stages())) {
    const auto num_chunks = static_cast<std::size_t>(shape.virtual_stages);
    const auto num_passes = static_cast<std::size_t>(shape.num_virtual_stages()) *
                            static_cast<std::size_t>(shape.num_micro_batches);
    for (StageState& stage : stages_) {
      stage.next_forward.resize(num_chunks);
      stage.next_backward.resize(num_chunks);
    }
    forward_end_.assign(num_passes, kNever);
    backward_end_.assign(num_passes, kNever);
    timetable_.stages.resize(stages_.size());
    next_.resize(stages_.size());
  }

  /// Nothing when the bounds are too tight for the policy to get through.
  std::optional<Timetable> run() {
    const int num_tasks = 2 * shape_.num_virtual_stages() * shape_.num_micro_batches;
    for (int stage = 0; stage < shape_.num_stages(); ++stage) consider(stage);
    for (int i = 0; i < num_tasks; ++i) {
      const std::optional<Candidate>* best = &next_.front();
      for (const std::optional<Candidate>& next : next_) {
        if (next && (!*best || next->sooner_than(**best))) best = &next;
      }
      if (!*best) return std::nullopt;
      take(**best);
    }
    return std::move(timetable_);
  }

 private:
  static constexpr int kNever = -1;

  struct StageState {
    std::vector<int> next_forward, next_backward;  // micro-batch, by chunk
    int clock = 0;
    int in_flight = 0;
  };

  struct Candidate {
    Task task;
    int stage = 0;
    int rank = 0;                     // within the policy: the less, the sooner
    std::tuple<int, int, int> order;  // among tasks of one kind
    bool sooner_than(const Candidate& other) const {
      return std::tie(task.begin, rank, order) < std::tie(other.task.begin, other.rank, other.order);
    }
  };

  int& end_of(bool forward, int virtual_stage, int micro_batch) {
    const int at = virtual_stage * shape_.num_micro_batches + micro_batch;
    return (forward ? forward_end_ : backward_end_)[static_cast<std::size_t>(at)];
  }
  bool is_encoder(int stage) const { return stage < shape_.encoder_stages; }

  /// What a stage does next, as things stand.
  void consider(int stage) {
    std::optional<Candidate>& best = next_[static_cast<std::size_t>(stage)];
    best.reset();
    const StageState& own = stages_[static_cast<std::size_t>(stage)];
    const int group = is_encoder(stage) ? shape_.encoder_stages : shape_.decoder_stages;
    const bool forward_first =
        is_encoder(stage) ? policy_.encoder_forward_first : policy_.decoder_forward_first;
    const auto offer = [&](const Candidate& candidate) {
      if (!best || candidate.sooner_than(*best)) best = candidate;
    };
    std::optional<Candidate> forward;  // the next in a fixed order, whether it can begin or not
    for (int chunk = 0; chunk < shape_.virtual_stages; ++chunk) {
      const auto c = static_cast<std::size_t>(chunk);
      if (const int i = own.next_forward[c]; i < shape_.num_micro_batches) {
        const Candidate next{{true, chunk, i, 0}, stage, forward_first ? 0 : 1, {i / group, chunk, i}};
        if (!forward || next.order < forward->order) forward = next;
      }
      if (const int i = own.next_backward[c]; i < own.next_forward[c]) {
        const int inputs = backward_inputs(shape_.virtual_stage(stage, chunk), i);
        if (inputs != kNever)
          offer({{false, chunk, i, std::max(inputs, own.clock)},
                 stage,
                 forward_first ? 1 : 0,
                 policy_.order_of_backward(chunk, i, group)});
      }
    }
    if (!forward || own.in_flight >= bound_of(shape_, stage, ahead_)) return;
    const int inputs =
        forward_inputs(shape_.virtual_stage(stage, forward->task.chunk), forward->task.micro_batch);
    if (inputs == kNever) return;
    forward->task.begin = std::max(inputs, own.clock);
    offer(*forward);
  }

  /// When all that a pass needs is there; kNever: not known yet. A micro-batch goes through all virtual
  /// stages in a row: the encoder's last one is before the decoder's first, in whose wake the others have its
  /// output.
  int forward_inputs(int at, int micro_batch) { return at == 0 ? 0 : end_of(true, at - 1, micro_batch); }
  int backward_inputs(int at, int micro_batch) {
    const bool turns = at == shape_.num_virtual_stages() - 1;
    return end_of(turns, turns ? at : at + 1, micro_batch);
  }

  void take(const Candidate next) {
    const auto& [forward, chunk, micro_batch, begin] = next.task;
    const int at = shape_.virtual_stage(next.stage, chunk);
    StageState& own = stages_[static_cast<std::size_t>(next.stage)];
    own.clock = begin + (forward ? kForwardTime : kBackwardTime);
    own.in_flight += forward ? 1 : -1;
    ++(forward ? own.next_forward : own.next_backward)[static_cast<std::size_t>(chunk)];
    end_of(forward, at, micro_batch) = own.clock;
    timetable_.stages[static_cast<std::size_t>(next.stage)].push_back(next.task);
    timetable_.makespan = std::max(timetable_.makespan, own.clock);
    timetable_.in_flight = std::max(timetable_.in_flight, own.in_flight);
    consider(next.stage);
    if (const int then = forward ? at + 1 : at - 1; then >= 0 && then < shape_.num_virtual_stages())
      consider(shape_.stage_of(then));
  }

  PipelineShape shape_;
  Policy policy_;
  int ahead_;
  std::vector<StageState> stages_;
  std::vector<std::optional<Candidate>> next_;   // by stage
  std::vector<int> forward_end_, backward_end_;  // by virtual stage and micro-batch
  Timetable timetable_;
};

using enum Policy::Backwards;
constexpr std::array<Policy, 7> kPolicies = {{
    {true, true, by_group},
    {true, true, by_chunk},
    {true, false, by_group},
    {true, false, by_chunk},
    {true, false, by_micro_batch},
    {false, true, by_group},
    {false, true, by_chunk},
}};

/// The shortest; of equals, that with the fewest chunks in flight. The encoder runs ahead of the decoder by
/// up to twice as many micro-batches as there are decoder stages; by more only where that is what it takes to
/// be no slower than 1F1B.
Timetable best_timetable(const PipelineShape& shape) {
  const int decoders = shape.decoder_stages;
  const int time_of_1f1b = (kForwardTime + kBackwardTime) * shape.virtual_stages *
                           (shape.num_micro_batches + shape.num_stages() - 1);
  std::optional<Timetable> best;
  for (const int ahead : {decoders, (3 * decoders + 1) / 2, 2 * decoders, 3 * decoders, 4 * decoders}) {
    if (best && ahead > 2 * decoders && best->makespan <= time_of_1f1b) break;
    for (const Policy& policy : kPolicies) {
      std::optional<Timetable> timetable = ListScheduler(shape, policy, ahead).run();
      if (timetable && (!best || timetable->key() < best->key())) best = std::move(timetable);
    }
    if (shape.encoder_stages == 0) break;  // nobody runs ahead
  }
  RED_CHECK(best.has_value(), "no timetable for {} + {} stages of {} chunks", shape.encoder_stages,
            shape.decoder_stages, shape.virtual_stages);
  return *std::move(best);
}

/// A decoder chunk's part of the gradient of the encoder's output has to be received when the chunk's slot
/// goes to another micro-batch: its sender waits for that. At that time the encoder may be far from the
/// backward pass that wants the part, and may not get there before the sender goes on.
struct DuePart {
  int due = 0;  ///< time
  int virtual_stage = 0;
  int micro_batch = 0;
};

int max_in_flight(const std::vector<Task>& tasks, int chunk) {
  int in_flight = 0, most = 0;
  for (const Task& task : tasks) {
    if (task.chunk != chunk) continue;
    in_flight += task.forward ? 1 : -1;
    most = std::max(most, in_flight);
  }
  return most;
}

std::vector<DuePart> due_parts(const PipelineShape& shape, const Timetable& timetable) {
  std::vector<DuePart> parts;
  for (int at = shape.first_decoder(); at < shape.num_virtual_stages(); ++at) {
    const std::vector<Task>& tasks = timetable.stages[static_cast<std::size_t>(shape.stage_of(at))];
    const int chunk = shape.chunk_of(at), num_slots = max_in_flight(tasks, chunk);
    for (const Task& task : tasks) {
      if (task.forward && task.chunk == chunk && task.micro_batch >= num_slots)
        parts.push_back({task.begin, at, task.micro_batch - num_slots});
    }
  }
  std::sort(parts.begin(), parts.end(), [](const DuePart& a, const DuePart& b) { return a.due < b.due; });
  return parts;
}

Program write_program(const PipelineShape& shape, int stage, const Timetable& timetable) {
  ProgramWriter writer(shape, stage);
  std::vector<DuePart> parts;
  if (stage == shape.encoder_stages - 1) parts = due_parts(shape, timetable);
  auto part = parts.begin();
  for (const Task& task : timetable.stages[static_cast<std::size_t>(stage)]) {
    for (; part != parts.end() && part->due <= task.begin; ++part)
      writer.receive_memory_gradients(part->micro_batch, part->virtual_stage);
    if (task.forward) {
      writer.forward(task.micro_batch, task.chunk);
    } else {
      writer.backward(task.micro_batch, Action::backward, task.chunk);
    }
  }
  return writer.finish();
}

}  // namespace

std::vector<Program> interleaved(const PipelineShape& shape) {
  check_shape(shape);
  const Timetable timetable = best_timetable(shape);
  std::vector<Program> programs;
  programs.reserve(timetable.stages.size());
  for (int stage = 0; stage < shape.num_stages(); ++stage)
    programs.push_back(write_program(shape, stage, timetable));
  return programs;
}

}  // namespace red::parallel
