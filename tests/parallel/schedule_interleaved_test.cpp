// The interleaved schedule by hand for a small pipeline, and what holds for all: order, memory, time, freedom
// of deadlocks even where a send waits for its receiver. Times are in forward passes of a chunk.
#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <string>
#include <tuple>

#include "base/error.hpp"
#include "base/philox.hpp"
#include "parallel/critical_path.hpp"
#include "parallel/pipelines.hpp"
#include "parallel/schedule.hpp"

namespace red::parallel {
namespace {

using enum Action;

/// Forward one, backward two, in each chunk.
double makespan_of(const PipelineShape& shape, const std::vector<Program>& programs) {
  const SimulationCosts costs{.stages = std::vector<StageCost>(
                                  static_cast<std::size_t>(shape.num_virtual_stages()), {1.0, 1.0, 1.0})};
  return simulate(shape, programs, costs).makespan;
}

/// 1F1B's on as many stages, in the same unit.
double makespan_of_1f1b(const PipelineShape& shape) {
  return 3.0 * shape.virtual_stages * (shape.num_micro_batches + shape.num_stages() - 1);
}

struct Pipeline {
  PipelineShape shape;
  std::vector<Program> programs;
};

/// Up to 8 + 8 stages of 2 and 3 chunks, up to 32 micro-batches.
const std::vector<Pipeline>& pipelines() {
  static const std::vector<Pipeline> all = [] {
    std::vector<Pipeline> made;
    for (const int virtual_stages : {2, 3}) {
      for (const PipelineShape& shape : interleaved_shapes(8, 8, 32, virtual_stages, 8))
        made.push_back({shape, interleaved(shape)});
    }
    return made;
  }();
  return all;
}

template <class F>
void for_each_pipeline(F f) {
  for (const auto& [shape, programs] : pipelines()) {
    f(shape, programs);
    if (testing::Test::HasFatalFailure()) return;
  }
}

// Two stages of two chunks: the first one's second chunk takes what the second one's first made.
TEST(Interleaved, TwoDecoderStagesByHand) {
  const PipelineShape shape{.decoder_stages = 2, .num_micro_batches = 1, .virtual_stages = 2};
  const std::vector<Program> programs = interleaved(shape);
  ASSERT_EQ(programs.size(), 2U);
  EXPECT_EQ(programs[0], (Program{{forward, 0, -1, 0},
                                  {send_activation, 0, 1, 0},
                                  {receive_activation, 0, 1, 1},
                                  {forward, 0, -1, 1},
                                  {send_activation, 0, 3, 1},
                                  {receive_gradient, 0, 3, 1},
                                  {backward, 0, -1, 1},
                                  {send_gradient, 0, 1, 1},
                                  {receive_gradient, 0, 1, 0},
                                  {backward, 0, -1, 0},
                                  {reduce_gradients, -1, -1, 0}}));
  EXPECT_EQ(programs[1], (Program{{receive_activation, 0, 0, 0},
                                  {forward, 0, -1, 0},
                                  {send_activation, 0, 2, 0},
                                  {receive_activation, 0, 2, 1},
                                  {forward, 0, -1, 1},
                                  {backward, 0, -1, 1},
                                  {send_gradient, 0, 2, 1},
                                  {receive_gradient, 0, 2, 0},
                                  {backward, 0, -1, 0},
                                  {send_gradient, 0, 0, 0},
                                  {reduce_gradients, -1, -1, 0}}));
}

// Chunks that are neighbours on one stage send each other nothing; the encoder's output comes once, and each
// decoder chunk sends its part of the gradient.
TEST(Interleaved, EncoderAndDecoderStageByHand) {
  const PipelineShape shape{
      .encoder_stages = 1, .decoder_stages = 1, .num_micro_batches = 1, .virtual_stages = 2};
  const std::vector<Program> programs = interleaved(shape);
  ASSERT_EQ(programs.size(), 2U);
  EXPECT_EQ(programs[0], (Program{{forward, 0, -1, 0},
                                  {forward, 0, -1, 1},
                                  {send_memory, 0, 2, 1},
                                  {receive_memory_gradient, 0, 3, 1},
                                  {receive_memory_gradient, 0, 2, 1},
                                  {backward, 0, -1, 1},
                                  {backward, 0, -1, 0},
                                  {reduce_gradients, -1, -1, 0}}));
  EXPECT_EQ(programs[1], (Program{{receive_memory, 0, 1, 0},
                                  {forward, 0, -1, 0},
                                  {forward, 0, -1, 1},
                                  {backward, 0, -1, 1},
                                  {send_memory_gradient, 0, 1, 1},
                                  {backward, 0, -1, 0},
                                  {send_memory_gradient, 0, 1, 0},
                                  {reduce_gradients, -1, -1, 0}}));
}

// The order of passes on two stages of two chunks, by hand after the picture in docs/parallelism.md.
TEST(Interleaved, PassesOfFourMicroBatchesByHand) {
  const PipelineShape shape{.decoder_stages = 2, .num_micro_batches = 4, .virtual_stages = 2};
  const auto passes = [](const Program& program) {
    std::string text;
    for (const Instruction& x : program) {
      if (x.action == forward || x.action == backward)
        text += fmt::format("{}{} ",
                            x.action == forward ? (x.chunk == 0 ? 'F' : 'f') : (x.chunk == 0 ? 'B' : 'b'),
                            x.micro_batch);
    }
    return text;
  };
  const std::vector<Program> programs = interleaved(shape);
  EXPECT_EQ(passes(programs[0]), "F0 F1 f0 f1 F2 b0 F3 b1 f2 B0 f3 B1 b2 b3 B2 B3 ");
  EXPECT_EQ(passes(programs[1]), "F0 F1 f0 b0 f1 b1 F2 B0 F3 B1 f2 b2 f3 b3 B2 B3 ");
  EXPECT_EQ(makespan_of(shape, programs), 27.0);  // 3 (v m + p - 1)
}

/// `ahead`: micro-batches of which an encoder stage holds all its chunks besides.
int bound_of(const PipelineShape& shape, int stage, int ahead) {
  const int v = shape.virtual_stages, encoder = shape.encoder_stages, decoder = shape.decoder_stages;
  if (stage >= encoder) return (v - 1) * decoder + 2 * (encoder + decoder - stage - 1) + 1;
  return (v - 1) * encoder + 2 * (encoder - stage - 1) + 1 + v * ahead;
}

int max_chunks_in_flight(const Program& program) {
  int in_flight = 0, most = 0;
  for (const Instruction& x : program) {
    if (x.action == forward) most = std::max(most, ++in_flight);
    if (x.action == backward) --in_flight;
  }
  return most;
}

// Micro-batches come in order in each chunk, forward and backward: sums have the order of 1F1B.
TEST(Interleaved, OrderOfMicroBatchesForAllShapes) {
  for_each_pipeline([](const PipelineShape& shape, const std::vector<Program>& programs) {
    ASSERT_EQ(static_cast<int>(programs.size()), shape.num_stages());
    for (const Program& program : programs) {
      std::vector<int> forwards(static_cast<std::size_t>(shape.virtual_stages)), backwards = forwards;
      for (const Instruction& x : program) {
        const auto chunk = static_cast<std::size_t>(x.chunk);
        if (x.action == forward) {
          ASSERT_EQ(x.micro_batch, forwards[chunk]++) << name_of(shape);
        } else if (x.action == backward) {
          ASSERT_EQ(x.micro_batch, backwards[chunk]++) << name_of(shape);
        }
      }
      ASSERT_FALSE(splits_backward(program));
      ASSERT_EQ(program.back().action, reduce_gradients);
    }
  });
}

TEST(Interleaved, MemoryBoundForAllShapes) {
  int num_shapes = 0, num_above_usual = 0;
  for_each_pipeline([&](const PipelineShape& shape, const std::vector<Program>& programs) {
    bool above_usual = false;
    for (int stage = 0; stage < shape.num_stages(); ++stage) {
      const int most = max_chunks_in_flight(programs[static_cast<std::size_t>(stage)]);
      ASSERT_LE(most, bound_of(shape, stage, 4 * shape.decoder_stages)) << name_of(shape) << " " << stage;
      above_usual |= most > bound_of(shape, stage, 2 * shape.decoder_stages);
    }
    ++num_shapes;
    num_above_usual += above_usual ? 1 : 0;
  });
  RecordProperty("above_usual", num_above_usual);
  EXPECT_LT(num_above_usual, num_shapes / 20);
}

// What slots take: they are as many as a chunk has micro-batches in flight at its worst, which is not the
// same time in every chunk. In a chain of decoder stages Megatron's figure for the first stage, (v + 1) p - 1
// chunks, is exceeded by at most half a chunk for each stage.
TEST(Interleaved, SlotsOfADecoderChain) {
  for_each_pipeline([](const PipelineShape& shape, const std::vector<Program>& programs) {
    if (shape.encoder_stages > 0) return;
    for (const Program& program : programs) {
      int slots = 0;
      for (int chunk = 0; chunk < shape.virtual_stages; ++chunk) slots += max_in_flight(program, chunk);
      const int p = shape.num_stages(), v = shape.virtual_stages;
      ASSERT_LE(slots, (v + 1) * p - 1 + (v - 1) * p / 2) << name_of(shape);
    }
  });
}

TEST(Interleaved, NeverSlowerThan1F1BAndTheKnownBubble) {
  int num_faster = 0;
  for_each_pipeline([&num_faster](const PipelineShape& shape, const std::vector<Program>& programs) {
    const double makespan = makespan_of(shape, programs), plain = makespan_of_1f1b(shape);
    ASSERT_LE(makespan, plain + 1e-9) << name_of(shape);
    if (makespan < plain - 0.5) ++num_faster;
    const int p = shape.num_stages(), m = shape.num_micro_batches, v = shape.virtual_stages;
    if (shape.encoder_stages == 0 && m % p == 0) {
      ASSERT_NEAR(makespan, 3.0 * (v * m + p - 1), 1e-9) << name_of(shape);
    }
    // The first decoder stage begins after the encoder, and ends before it.
    if (shape.encoder_stages > 0) {
      ASSERT_GE(makespan, 3.0 * v * (m + shape.encoder_stages) - 1e-9);
    }
  });
  EXPECT_GT(num_faster, 1000);
}

TEST(Interleaved, MakespanIsTheCriticalPath) {
  uint64_t draw = 0;
  const auto random = [&draw] { return 0.1 + uniform_float(philox(11, draw++)[0]); };
  for_each_pipeline([&](const PipelineShape& shape, const std::vector<Program>& programs) {
    SimulationCosts costs{.stages = {}, .transfer = 0.5 * random()};
    for (int s = 0; s < shape.num_virtual_stages(); ++s)
      costs.stages.push_back({random(), random(), random()});
    const double expected = CriticalPath(shape, programs, costs).length();
    ASSERT_NEAR(simulate(shape, programs, costs).makespan, expected, 1e-9) << name_of(shape);  // fp64 sums
  });
}

/// Replays programs as the executor runs them where a send is over only when it has been received: a slot
/// goes to another micro-batch when what it sent has arrived. Gradients are expected as soon as the
/// activation has been sent, all else when the program comes to it.
class BlockingReplay {
 public:
  BlockingReplay(const PipelineShape& shape, const std::vector<Program>& programs)
      : topology_(shape), programs_(programs), next_(programs.size()) {}

  /// True when every program runs to its end.
  bool run() {
    for (bool moved = true; moved;) {
      moved = false;
      for (std::size_t stage = 0; stage < programs_.size(); ++stage) {
        while (next_[stage] < programs_[stage].size() && step(static_cast<int>(stage))) {
          ++next_[stage];
          moved = true;
        }
      }
    }
    for (std::size_t stage = 0; stage < programs_.size(); ++stage) {
      if (next_[stage] < programs_[stage].size()) return false;
    }
    return true;
  }

 private:
  using Message = std::tuple<MessageKind, int, int, int>;  // from, to, micro-batch

  bool step(int stage) {
    const PipelineShape& shape = topology_.shape();
    const Program& program = programs_[static_cast<std::size_t>(stage)];
    const Instruction& x = program[next_[static_cast<std::size_t>(stage)]];
    if (x.action == reduce_gradients) return true;
    const int at = shape.virtual_stage(stage, x.chunk);
    const int before = x.micro_batch - max_in_flight(program, x.chunk);
    for (const Message& message : sent_) {
      const auto& [kind, from, to, micro_batch] = message;
      if (from == at && micro_batch <= before && kind != MessageKind::gradient &&
          !received_.contains(message))
        return false;
    }
    const MessageRule* rule = rule_of(x.action);
    if (rule == nullptr) return true;
    if (rule->send == x.action) {
      sent_.insert({rule->kind, at, x.peer, x.micro_batch});
      return true;
    }
    const Message message{rule->kind, x.peer, at, x.micro_batch};
    if (!sent_.contains(message)) return false;
    received_.insert(message);
    return true;
  }

  PipelineTopology topology_;
  const std::vector<Program>& programs_;
  std::vector<std::size_t> next_;
  std::set<Message> sent_, received_;
};

TEST(Interleaved, NoDeadlockWhereSendsWaitForTheirReceivers) {
  for (const int virtual_stages : {2, 3}) {
    for (const PipelineShape& shape : interleaved_shapes(4, 6, 16, virtual_stages, 5)) {
      const std::vector<Program> programs = interleaved(shape);
      ASSERT_TRUE(BlockingReplay(shape, programs).run()) << name_of(shape);
    }
  }
}

// Forward passes alone run too, and so do the programs of fewer micro-batches cut out of those of more.
TEST(Interleaved, ForwardPassesAlone) {
  for (const PipelineShape& shape : interleaved_shapes(3, 4, 9, 2)) {
    const SimulationCosts costs{
        .stages = std::vector<StageCost>(static_cast<std::size_t>(shape.num_virtual_stages()))};
    const Simulation s = simulate(shape, forward_only(shape), costs, Passes::forward_only);
    ASSERT_GE(s.makespan, 2.0 * shape.num_micro_batches) << name_of(shape);
  }
}

/// False when the simulator refuses them.
bool runs(const PipelineShape& shape, const std::vector<Program>& programs) {
  try {
    makespan_of(shape, programs);
    return true;
  } catch (const LogicError&) {
    return false;
  }
}

// No instruction is superfluous, may come twice, be of another micro-batch or chunk, or go elsewhere.
TEST(Interleaved, TheSimulatorFindsEveryCorruption) {
  int num_corruptions = 0;
  for (const PipelineShape& shape : interleaved_shapes(2, 3, 3, 2)) {
    const std::vector<Program> good = interleaved(shape);
    for (std::size_t stage = 0; stage < good.size(); ++stage) {
      for (std::size_t at = 0; at < good[stage].size(); ++at) {
        const auto place = static_cast<std::ptrdiff_t>(at);
        std::vector<std::vector<Program>> corrupted(5, good);
        corrupted[0][stage].erase(corrupted[0][stage].begin() + place);
        corrupted[1][stage].insert(corrupted[1][stage].begin() + place, good[stage][at]);
        corrupted[2][stage][at].micro_batch += 1;
        corrupted[3][stage][at].peer += 1;
        corrupted[4][stage][at].chunk += good[stage][at].chunk == 0 ? 1 : -1;
        for (const std::vector<Program>& programs : corrupted) {
          ASSERT_FALSE(runs(shape, programs)) << name_of(shape) << " " << to_string(good[stage][at]);
          ++num_corruptions;
        }
      }
    }
  }
  EXPECT_GT(num_corruptions, 5'000);
}

// A step of fewer micro-batches runs what is left of a longer step's programs, in no more slots.
TEST(Interleaved, FewerMicroBatchesOfALongerStep) {
  for (PipelineShape shape : interleaved_shapes(3, 3, 7, 2)) {
    const std::vector<Program> whole = interleaved(shape);
    for (--shape.num_micro_batches; shape.num_micro_batches > 0; --shape.num_micro_batches) {
      std::vector<Program> first;
      for (const Program& program : whole) {
        first.push_back(first_micro_batches(program, shape.num_micro_batches));
        for (int chunk = 0; chunk < 2; ++chunk)
          ASSERT_LE(max_in_flight(first.back(), chunk), max_in_flight(program, chunk));
      }
      ASSERT_TRUE(runs(shape, first)) << name_of(shape);
    }
  }
}

TEST(Interleaved, ShapeKnowsWhereAVirtualStageIs) {
  for (const PipelineShape& shape : interleaved_shapes(3, 4, 1, 3)) {
    std::set<int> seen;
    for (int stage = 0; stage < shape.num_stages(); ++stage) {
      for (int chunk = 0; chunk < 3; ++chunk) {
        const int at = shape.virtual_stage(stage, chunk);
        EXPECT_EQ(shape.stage_of(at), stage);
        EXPECT_EQ(shape.chunk_of(at), chunk);
        EXPECT_EQ(shape.is_decoder(at), stage >= shape.encoder_stages);
        seen.insert(at);
      }
    }
    EXPECT_EQ(static_cast<int>(seen.size()), shape.num_virtual_stages());
  }
}

TEST(Interleaved, OtherSchedulesKnowNoChunks) {
  const PipelineShape shape{.decoder_stages = 2, .num_micro_batches = 2, .virtual_stages = 2};
  EXPECT_THROW(one_forward_one_backward(shape), LogicError);
  EXPECT_THROW(zero_bubble_h1(shape), LogicError);
  EXPECT_THROW(interleaved({.decoder_stages = 2, .virtual_stages = 0}), LogicError);
}

}  // namespace
}  // namespace red::parallel
