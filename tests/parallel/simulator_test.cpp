// Makespans by hand and by formula, every shape free of deadlocks, and every kind of broken program found.
#include "parallel/simulator.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "base/error.hpp"
#include "base/philox.hpp"
#include "parallel/critical_path.hpp"
#include "parallel/pipelines.hpp"

namespace red::parallel {
namespace {

using enum Action;

SimulationCosts equal_costs(const PipelineShape& shape, const StageCost& cost) {
  return {.stages = std::vector<StageCost>(static_cast<std::size_t>(shape.num_stages()), cost)};
}

TEST(Simulator, OneStageIsAlwaysBusy) {
  const PipelineShape shape{.num_micro_batches = 4};
  const Simulation s = simulate(shape, one_forward_one_backward(shape), equal_costs(shape, {1.0, 2.0, 3.0}));
  EXPECT_DOUBLE_EQ(s.makespan, 24.0);
  EXPECT_DOUBLE_EQ(s.busy[0], 24.0);
  EXPECT_DOUBLE_EQ(s.wait[0], 0.0);
  EXPECT_DOUBLE_EQ(s.bubble, 0.0);
}

// Encoder 1 + 1 + 1, decoder 2 + 2 + 2, a message takes half a unit, two micro-batches:
//   encoder  F0 0-1, F1 1-2, B0 8-10, B1 14-16           (waits for gradients at 8 and 14)
//   decoder  F0 1.5-3.5, B0 3.5-7.5, F1 7.5-9.5, B1 9.5-13.5
TEST(Simulator, UnequalStagesByHand) {
  const PipelineShape shape{.encoder_stages = 1, .decoder_stages = 1, .num_micro_batches = 2};
  const SimulationCosts costs{.stages = {{1, 1, 1}, {2, 2, 2}}, .transfer = 0.5};
  const Simulation s = simulate(shape, one_forward_one_backward(shape), costs);
  EXPECT_DOUBLE_EQ(s.makespan, 16.0);
  EXPECT_DOUBLE_EQ(s.busy[0], 6.0);
  EXPECT_DOUBLE_EQ(s.busy[1], 12.0);
  EXPECT_DOUBLE_EQ(s.wait[0], 10.0);
  EXPECT_DOUBLE_EQ(s.wait[1], 4.0);
  EXPECT_DOUBLE_EQ(s.bubble, 1.0 - 18.0 / 32.0);
}

// Forward, input gradient and weight gradient have costs of their own: a program that puts a weight pass into
// the wait for the next gradient is as much shorter.
TEST(Simulator, SplitBackwardFillsTheWait) {
  const PipelineShape shape{.decoder_stages = 2, .num_micro_batches = 1};
  const std::vector<Program> whole = one_forward_one_backward(shape);
  std::vector<Program> split = whole;
  split[1] = {{receive_activation, 0, 0}, {forward, 0, -1},         {backward_input, 0, -1},
              {send_gradient, 0, 0},      {backward_weight, 0, -1}, {reduce_gradients, -1, -1}};
  const SimulationCosts costs = equal_costs(shape, {1.0, 1.5, 1.0});
  EXPECT_DOUBLE_EQ(simulate(shape, whole, costs).makespan, 7.0);
  EXPECT_DOUBLE_EQ(simulate(shape, split, costs).makespan, 6.0);
}

// For equal stages and free messages the bubble of 1F1B is (p - 1) / (m + p - 1).
TEST(Simulator, EveryShapeRunsAndHasTheKnownBubble) {
  for (const PipelineShape& shape : all_shapes(8, 8, 32)) {
    const Simulation s =
        simulate(shape, one_forward_one_backward(shape), equal_costs(shape, {1.0, 0.75, 1.25}));
    const double m = shape.num_micro_batches, p = shape.num_stages();
    ASSERT_NEAR(s.bubble, (p - 1) / (m + p - 1), 1e-12) << name_of(shape);  // fp64 sums of up to 100 terms
    ASSERT_NEAR(s.makespan, (m + p - 1) * 3.0, 1e-9) << name_of(shape);
    for (const double busy : s.busy) ASSERT_NEAR(busy, m * 3.0, 1e-9) << name_of(shape);
  }
}

// For equal passes and free messages ZB-H1 leaves a bubble of p - 1 passes. With fewer micro-batches than
// stages the first one's way through the pipeline and back is longer than that, and the first stage ends
// last: it has one gradient left to do with each micro-batch's.
TEST(Simulator, ZeroBubbleH1HasTheKnownBubble) {
  for (const PipelineShape& shape : all_shapes(8, 8, 32)) {
    const Simulation s = simulate(shape, zero_bubble_h1(shape), equal_costs(shape, {2.0, 2.0, 2.0}));
    const double m = shape.num_micro_batches, p = shape.num_stages();
    const double passes = m >= p ? 3 * m + p - 1 : 2 * m + 2 * p - 1;
    ASSERT_NEAR(s.makespan, 2.0 * passes, 1e-9) << name_of(shape);  // fp64 sums of up to 100 terms
    ASSERT_NEAR(s.bubble, 1.0 - 3 * m / passes, 1e-12) << name_of(shape);
    if (m >= p) {
      ASSERT_NEAR(s.bubble, (p - 1) / (3 * m + p - 1), 1e-12) << name_of(shape);
    }
  }
}

// Whatever the costs, every schedule runs to its end, in the time of the longest chain through it.
TEST(Simulator, MakespanIsTheCriticalPath) {
  uint64_t draw = 0;
  const auto random = [&draw] { return 0.1 + uniform_float(philox(10, draw++)[0]); };
  for (const PipelineShape& shape : all_shapes(8, 8, 32)) {
    SimulationCosts costs{.stages = {}, .transfer = 0.5 * random()};
    for (int s = 0; s < shape.num_stages(); ++s) costs.stages.push_back({random(), random(), random()});
    for (const PipelineSchedule schedule : kSchedules) {
      const std::vector<Program> programs = make_programs(schedule, shape);
      const double expected = CriticalPath(shape, programs, costs).length();
      ASSERT_NEAR(simulate(shape, programs, costs).makespan, expected, 1e-9) << name_of(shape);
    }
  }
}

// Forward passes alone stream: the last stage is through after m + p - 1 of them.
TEST(Simulator, ForwardPassesAlone) {
  for (const PipelineShape& shape : all_shapes(4, 4, 9)) {
    const std::vector<Program> programs = forward_only(shape);
    const SimulationCosts costs = equal_costs(shape, {2.0, 100.0, 100.0});
    const Simulation s = simulate(shape, programs, costs, Passes::forward_only);
    ASSERT_NEAR(s.makespan, 2.0 * (shape.num_micro_batches + shape.num_stages() - 1), 1e-9) << name_of(shape);
    ASSERT_THROW(simulate(shape, programs, costs), LogicError) << name_of(shape);
    ASSERT_THROW(simulate(shape, one_forward_one_backward(shape), costs, Passes::forward_only), LogicError);
    std::vector<Program> broken = programs;
    broken.back().pop_back();  // the last forward
    ASSERT_THROW(simulate(shape, broken, costs, Passes::forward_only), LogicError);
  }
}

// One encoder and one decoder stage, the decoder heavier: it never waits once it began, so the makespan is
// its own work, and the encoder's first forward and last backward around it.
TEST(Simulator, AHeavierDecoderStageHidesTheEncoder) {
  uint64_t draw = 0;
  const auto random = [&draw] { return 0.1 + uniform_float(philox(8, draw++)[0]); };
  for (int m = 1; m <= 32; ++m) {
    const PipelineShape shape{.encoder_stages = 1, .decoder_stages = 1, .num_micro_batches = m};
    const StageCost encoder{random(), random(), random()};
    const double e = encoder.forward + encoder.backward_input + encoder.backward_weight;
    StageCost decoder{random(), random(), random()};
    double d = decoder.forward + decoder.backward_input + decoder.backward_weight;
    if (d < e) {
      decoder.forward += e - d;
      d = e;
    }
    const SimulationCosts costs{.stages = {encoder, decoder}};
    const Simulation s = simulate(shape, one_forward_one_backward(shape), costs);
    ASSERT_NEAR(s.makespan, m * d + e, 1e-9) << m;  // fp64 sums
    ASSERT_NEAR(s.wait[1], e, 1e-9) << m;
  }
}

// Whatever the costs: no stage is faster than its own work, nor the pipeline than one micro-batch's way
// through it and back, and waits add up.
TEST(Simulator, BoundsHoldForRandomCosts) {
  uint64_t draw = 0;
  const auto random = [&draw] { return 0.1 + uniform_float(philox(9, draw++)[0]); };
  for (const PipelineShape& shape : all_shapes(3, 4, 9)) {
    SimulationCosts costs{.stages = {}, .transfer = random()};
    double through = 0.0;
    for (int s = 0; s < shape.num_stages(); ++s) {
      const StageCost cost{random(), random(), random()};
      costs.stages.push_back(cost);
      through += cost.forward + cost.backward_input + cost.backward_weight;
    }
    const Simulation s = simulate(shape, one_forward_one_backward(shape), costs);
    const double messages = 2.0 * costs.transfer * (shape.num_stages() - 1);
    ASSERT_GE(s.makespan, through + messages - 1e-9) << name_of(shape);
    for (std::size_t i = 0; i < s.busy.size(); ++i) {
      const StageCost& cost = costs.stages[i];
      ASSERT_NEAR(s.busy[i],
                  shape.num_micro_batches * (cost.forward + cost.backward_input + cost.backward_weight),
                  1e-9);
      ASSERT_NEAR(s.wait[i], s.makespan - s.busy[i], 1e-9);
      ASSERT_GE(s.wait[i], -1e-9);
    }
  }
}

std::string error_of(const PipelineShape& shape, const std::vector<Program>& programs) {
  try {
    simulate(shape, programs, equal_costs(shape, {}));
    return {};
  } catch (const LogicError& error) {
    return error.what();
  }
}

struct Broken {
  std::vector<Program> programs;
  std::vector<std::string> words;  // of the message
};

TEST(Simulator, NamesWhatIsWrong) {
  const PipelineShape shape{.encoder_stages = 1, .decoder_stages = 2, .num_micro_batches = 2};
  const std::vector<Program> good = one_forward_one_backward(shape);
  ASSERT_EQ(error_of(shape, good), "");
  const auto broken = [&good](auto change) {
    std::vector<Program> programs = good;
    change(programs);
    return programs;
  };
  const auto index = [&good](int stage, const Instruction& x) {
    const Program& program = good[static_cast<std::size_t>(stage)];
    return std::find(program.begin(), program.end(), x) - program.begin();
  };
  const std::vector<Broken> cases = {
      // The encoder waits for a gradient of what it has not sent yet.
      {broken([&](auto& p) {
         const auto at = index(0, {receive_memory_gradient, 0, 2});
         std::rotate(p[0].begin(), p[0].begin() + at, p[0].begin() + at + 1);
       }),
       {"deadlock", "stage 0, instruction 0 (receive_memory_gradient of micro-batch 0 from stage 2)",
        "stage 1, instruction 0 (receive_memory of micro-batch 0 from stage 0)", "stage 2"}},
      {broken([&](auto& p) {
         p[0].erase(p[0].begin() + index(0, {send_memory, 1, 2}));
       }),
       {"stage 2", "(receive_memory of micro-batch 1 from stage 0)", "no partner",
        "stage 0 never does send_memory"}},
      {broken([&](auto& p) {
         p[0].erase(p[0].begin() + index(0, {receive_memory_gradient, 1, 1}));
       }),
       {"stage 0", "(backward of micro-batch 1)",
        "runs before receive_memory_gradient of micro-batch 1 from stage 1"}},
      {broken([&](auto& p) {
         p[1].push_back({send_activation, 1, 2});
       }),
       {"stage 1", "runs a second time"}},
      {broken([&](auto& p) {
         p[2].push_back({forward, 1, -1});
       }),
       {"stage 2", "(forward of micro-batch 1)", "runs a second time"}},
      {broken([&](auto& p) {
         p[2].push_back({backward_weight, 1, -1});
       }),
       {"stage 2", "runs a second time"}},
      {broken([&](auto& p) { std::swap(p[1][0], p[1][1]); }),
       {"stage 1, instruction 0 (forward of micro-batch 0)", "runs before receive_memory of micro-batch 0"}},
      {broken([&](auto& p) { std::swap(p[0][0], p[0][1]); }),
       {"stage 0, instruction 0 (send_memory of micro-batch 0 to stage 1)", "runs before forward"}},
      {broken([&](auto& p) {
         p[0].insert(p[0].begin(), {reduce_gradients, -1, -1});
       }),
       {"stage 0, instruction 0 (reduce_gradients)", "runs before backward_weight of micro-batch 0"}},
      {broken([&](auto& p) { p[1].pop_back(); }), {"stage 1", "reduce_gradients is missing"}},
      {broken([&](auto& p) {
         p[2].push_back({send_activation, 0, 1});
       }),
       {"stage 2", "no such message"}},
      {broken([&](auto& p) {
         p[0].push_back({send_memory, 0, 3});
       }),
       {"stage 0", "no such peer"}},
      {broken([&](auto& p) {
         p[0].push_back({forward, 2, -1});
       }),
       {"stage 0", "no such micro-batch"}},
      {broken([&](auto& p) {
         p[0].push_back({forward, 1, 1});
       }),
       {"stage 0", "names a peer"}},
      {broken([&](auto& p) {
         std::swap(p[0][static_cast<std::size_t>(index(0, {receive_memory_gradient, 0, 1}))],
                   p[0][static_cast<std::size_t>(index(0, {receive_memory_gradient, 1, 1}))]);
       }),
       {"stage 0", "(receive_memory_gradient of micro-batch 1 from stage 1)", "is of micro-batch 0"}},
  };
  for (const Broken& bad : cases) {
    const std::string message = error_of(shape, bad.programs);
    EXPECT_FALSE(message.empty()) << "accepted; expected " << bad.words.back();
    for (const std::string& word : bad.words) {
      EXPECT_NE(message.find(word), std::string::npos) << "'" << message << "' lacks '" << word << "'";
    }
  }
}

// A message that nobody receives: the receive is gone, and so is all that needed it.
TEST(Simulator, FindsMessagesThatNobodyReceives) {
  const PipelineShape shape{.decoder_stages = 2, .num_micro_batches = 1};
  std::vector<Program> programs = one_forward_one_backward(shape);
  programs[1] = {};
  EXPECT_NE(error_of(shape, programs).find("no partner"), std::string::npos);
  programs[0] = {{forward, 0, -1}, {send_activation, 0, 1}};
  const std::string message = error_of(shape, programs);
  EXPECT_NE(message.find("stage 0, instruction 1 (send_activation of micro-batch 0 to stage 1)"),
            std::string::npos)
      << message;
  EXPECT_NE(message.find("stage 1 never receives it"), std::string::npos) << message;
  programs[0] = {{forward, 0, -1}};
  EXPECT_NE(error_of(shape, programs).find("backward_input of micro-batch 0 is missing"), std::string::npos);
}

// No instruction of a program is superfluous, may come twice, be of another micro-batch or go elsewhere.
TEST(Simulator, FindsEveryOneOfManyCorruptions) {
  int num_corruptions = 0;
  const auto corrupt = [&](const PipelineShape& shape, const std::vector<Program>& good, std::size_t stage) {
    for (std::size_t at = 0; at < good[stage].size(); ++at) {
      const auto place = static_cast<std::ptrdiff_t>(at);
      std::vector<std::vector<Program>> corrupted(4, good);
      corrupted[0][stage].erase(corrupted[0][stage].begin() + place);
      corrupted[1][stage].insert(corrupted[1][stage].begin() + place, good[stage][at]);
      corrupted[2][stage][at].micro_batch += 1;
      corrupted[3][stage][at].peer += 1;
      for (const std::vector<Program>& programs : corrupted) {
        ASSERT_NE(error_of(shape, programs), "")
            << name_of(shape) << " stage " << stage << " " << to_string(good[stage][at]);
        ++num_corruptions;
      }
    }
  };
  for (const PipelineShape& shape : all_shapes(3, 3, 4)) {
    for (const PipelineSchedule schedule : kSchedules) {
      const std::vector<Program> good = make_programs(schedule, shape);
      for (std::size_t stage = 0; stage < good.size(); ++stage) corrupt(shape, good, stage);
    }
  }
  EXPECT_GT(num_corruptions, 20'000);
}

TEST(Simulator, RefusesCostsThatDoNotFit) {
  const PipelineShape shape{.encoder_stages = 1, .decoder_stages = 1, .num_micro_batches = 2};
  const std::vector<Program> programs = one_forward_one_backward(shape);
  EXPECT_THROW(simulate(shape, programs, {.stages = {{}}}), LogicError);
  EXPECT_THROW(simulate(shape, programs, {.stages = {{}, {}}, .transfer = -1.0}), LogicError);
  EXPECT_THROW(simulate({.decoder_stages = 1}, programs, {.stages = {{}}}), LogicError);
}

}  // namespace
}  // namespace red::parallel
