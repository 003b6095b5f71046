// 1F1B and ZB-H1 by hand for small pipelines; their counts and memory bounds for all.
#include "parallel/schedule.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "base/error.hpp"
#include "parallel/pipelines.hpp"

namespace red::parallel {
namespace {

using enum Action;

TEST(OneForwardOneBackward, OneStageNeedsNoMessages) {
  const std::vector<Program> programs = one_forward_one_backward({.num_micro_batches = 3});
  ASSERT_EQ(programs.size(), 1U);
  EXPECT_EQ(programs[0], (Program{{forward, 0, -1},
                                  {backward, 0, -1},
                                  {forward, 1, -1},
                                  {backward, 1, -1},
                                  {forward, 2, -1},
                                  {backward, 2, -1},
                                  {reduce_gradients, -1, -1}}));
}

TEST(OneForwardOneBackward, EncoderAndDecoderStageByHand) {
  const std::vector<Program> programs =
      one_forward_one_backward({.encoder_stages = 1, .decoder_stages = 1, .num_micro_batches = 2});
  ASSERT_EQ(programs.size(), 2U);
  EXPECT_EQ(programs[0], (Program{{forward, 0, -1},
                                  {send_memory, 0, 1},
                                  {forward, 1, -1},
                                  {send_memory, 1, 1},
                                  {receive_memory_gradient, 0, 1},
                                  {backward, 0, -1},
                                  {receive_memory_gradient, 1, 1},
                                  {backward, 1, -1},
                                  {reduce_gradients, -1, -1}}));
  EXPECT_EQ(programs[1], (Program{{receive_memory, 0, 0},
                                  {forward, 0, -1},
                                  {backward, 0, -1},
                                  {send_memory_gradient, 0, 0},
                                  {receive_memory, 1, 0},
                                  {forward, 1, -1},
                                  {backward, 1, -1},
                                  {send_memory_gradient, 1, 0},
                                  {reduce_gradients, -1, -1}}));
}

// One micro-batch through 2 + 2 stages: the encoder's residual stream stays among encoder stages, its output
// goes straight to both decoder stages, and both send a gradient back.
TEST(OneForwardOneBackward, TwoEncoderAndTwoDecoderStagesByHand) {
  const std::vector<Program> programs =
      one_forward_one_backward({.encoder_stages = 2, .decoder_stages = 2, .num_micro_batches = 1});
  ASSERT_EQ(programs.size(), 4U);
  EXPECT_EQ(programs[0], (Program{{forward, 0, -1},
                                  {send_activation, 0, 1},
                                  {receive_gradient, 0, 1},
                                  {backward, 0, -1},
                                  {reduce_gradients, -1, -1}}));
  EXPECT_EQ(programs[1], (Program{{receive_activation, 0, 0},
                                  {forward, 0, -1},
                                  {send_memory, 0, 2},
                                  {send_memory, 0, 3},
                                  {receive_memory_gradient, 0, 3},
                                  {receive_memory_gradient, 0, 2},
                                  {backward, 0, -1},
                                  {send_gradient, 0, 0},
                                  {reduce_gradients, -1, -1}}));
  EXPECT_EQ(programs[2], (Program{{receive_memory, 0, 1},
                                  {forward, 0, -1},
                                  {send_activation, 0, 3},
                                  {receive_gradient, 0, 3},
                                  {backward, 0, -1},
                                  {send_memory_gradient, 0, 1},
                                  {reduce_gradients, -1, -1}}));
  EXPECT_EQ(programs[3], (Program{{receive_activation, 0, 2},
                                  {receive_memory, 0, 1},
                                  {forward, 0, -1},
                                  {backward, 0, -1},
                                  {send_gradient, 0, 2},
                                  {send_memory_gradient, 0, 1},
                                  {reduce_gradients, -1, -1}}));
}

TEST(OneForwardOneBackward, DecoderOnlyStages) {
  const std::vector<Program> programs =
      one_forward_one_backward({.decoder_stages = 2, .num_micro_batches = 1});
  EXPECT_EQ(programs[0], (Program{{forward, 0, -1},
                                  {send_activation, 0, 1},
                                  {receive_gradient, 0, 1},
                                  {backward, 0, -1},
                                  {reduce_gradients, -1, -1}}));
  EXPECT_EQ(programs[1], (Program{{receive_activation, 0, 0},
                                  {forward, 0, -1},
                                  {backward, 0, -1},
                                  {send_gradient, 0, 0},
                                  {reduce_gradients, -1, -1}}));
}

// Forwards ahead, then one backward for each forward, in order; gradients are reduced at the very end.
TEST(OneForwardOneBackward, OrderAndMemoryBoundForAllShapes) {
  for (const PipelineShape& shape : all_shapes(8, 8, 32)) {
    const std::vector<Program> programs = one_forward_one_backward(shape);
    ASSERT_EQ(static_cast<int>(programs.size()), shape.num_stages());
    for (int stage = 0; stage < shape.num_stages(); ++stage) {
      const Program& program = programs[static_cast<std::size_t>(stage)];
      const int bound = std::min(shape.num_stages() - stage, shape.num_micro_batches);
      ASSERT_EQ(max_in_flight(program), bound) << name_of(shape) << " stage " << stage;
      int forwards = 0, backwards = 0;
      for (const Instruction& instruction : program) {
        if (instruction.action == forward) {
          ASSERT_EQ(instruction.micro_batch, forwards++);
        } else if (instruction.action == backward) {
          ASSERT_EQ(forwards, std::min(backwards + bound, shape.num_micro_batches));
          ASSERT_EQ(instruction.micro_batch, backwards++);
        }
      }
      ASSERT_EQ(forwards, shape.num_micro_batches);
      ASSERT_EQ(backwards, shape.num_micro_batches);
      ASSERT_EQ(program.back().action, reduce_gradients);
    }
  }
}

TEST(ZeroBubbleH1, EncoderAndDecoderStageByHand) {
  const std::vector<Program> programs =
      zero_bubble_h1({.encoder_stages = 1, .decoder_stages = 1, .num_micro_batches = 3});
  ASSERT_EQ(programs.size(), 2U);
  EXPECT_EQ(programs[0], one_forward_one_backward({1, 1, 3})[0]);
  EXPECT_EQ(programs[1], (Program{{receive_memory, 0, 0},
                                  {forward, 0, -1},
                                  {backward_input, 0, -1},
                                  {send_memory_gradient, 0, 0},
                                  {receive_memory, 1, 0},
                                  {forward, 1, -1},
                                  {backward_input, 1, -1},
                                  {send_memory_gradient, 1, 0},
                                  {backward_weight, 0, -1},
                                  {receive_memory, 2, 0},
                                  {forward, 2, -1},
                                  {backward_input, 2, -1},
                                  {send_memory_gradient, 2, 0},
                                  {backward_weight, 1, -1},
                                  {backward_weight, 2, -1},
                                  {reduce_gradients, -1, -1}}));
}

// The middle stage gets its gradient from the last one, and sends its own on before any weight gradient.
TEST(ZeroBubbleH1, MiddleOfThreeStagesByHand) {
  const std::vector<Program> programs = zero_bubble_h1({.decoder_stages = 3, .num_micro_batches = 2});
  EXPECT_EQ(programs[1], (Program{{receive_activation, 0, 0},
                                  {forward, 0, -1},
                                  {send_activation, 0, 2},
                                  {receive_activation, 1, 0},
                                  {forward, 1, -1},
                                  {send_activation, 1, 2},
                                  {receive_gradient, 0, 2},
                                  {backward_input, 0, -1},
                                  {send_gradient, 0, 0},
                                  {receive_gradient, 1, 2},
                                  {backward_input, 1, -1},
                                  {send_gradient, 1, 0},
                                  {backward_weight, 0, -1},
                                  {backward_weight, 1, -1},
                                  {reduce_gradients, -1, -1}}));
}

/// Without the weight gradients: the order that both schedules share.
Program without_weights(Program program) {
  std::erase_if(program, [](const Instruction& x) { return x.action == backward_weight; });
  for (Instruction& x : program) {
    if (x.action == backward) x.action = backward_input;
  }
  return program;
}

// 1F1B's order but for the weight gradients, which come in the order of micro-batches: their sums are 1F1B's
// bit for bit. No stage holds more micro-batches than 1F1B's first one.
TEST(ZeroBubbleH1, OrderAndMemoryBoundForAllShapes) {
  for (const PipelineShape& shape : all_shapes(8, 8, 32)) {
    const std::vector<Program> programs = zero_bubble_h1(shape), plain = one_forward_one_backward(shape);
    ASSERT_EQ(programs.size(), plain.size());
    ASSERT_EQ(programs[0], plain[0]);
    for (std::size_t stage = 0; stage < programs.size(); ++stage) {
      const Program& program = programs[stage];
      ASSERT_EQ(without_weights(program), without_weights(plain[stage])) << name_of(shape) << " " << stage;
      ASSERT_EQ(max_in_flight(program), std::min(shape.num_stages(), shape.num_micro_batches));
      ASSERT_EQ(splits_backward(program), stage > 0);
      int weights = 0;
      for (const Instruction& instruction : program) {
        if (instruction.action == backward || instruction.action == backward_weight) {
          ASSERT_EQ(instruction.micro_batch, weights++);
        }
      }
      ASSERT_EQ(weights, shape.num_micro_batches);
    }
  }
}

// Cut to fewer micro-batches, a program is that of so many: steps of any size run in the slots of the
// largest.
TEST(FirstMicroBatches, IsTheProgramOfSoMany) {
  for (const PipelineShape& shape : all_shapes(3, 4, 9)) {
    for (const PipelineSchedule schedule : kSchedules) {
      const std::vector<Program> longer =
          make_programs(schedule, {shape.encoder_stages, shape.decoder_stages, shape.num_micro_batches + 5});
      const std::vector<Program> expected = make_programs(schedule, shape);
      for (std::size_t stage = 0; stage < expected.size(); ++stage) {
        ASSERT_EQ(first_micro_batches(longer[stage], shape.num_micro_batches), expected[stage])
            << name_of(shape) << " " << stage;
      }
    }
  }
}

TEST(ForwardOnly, EncoderAndDecoderStageByHand) {
  const std::vector<Program> programs =
      forward_only({.encoder_stages = 1, .decoder_stages = 1, .num_micro_batches = 2});
  ASSERT_EQ(programs.size(), 2U);
  EXPECT_EQ(programs[0],
            (Program{{forward, 0, -1}, {send_memory, 0, 1}, {forward, 1, -1}, {send_memory, 1, 1}}));
  EXPECT_EQ(programs[1],
            (Program{{receive_memory, 0, 0}, {forward, 0, -1}, {receive_memory, 1, 0}, {forward, 1, -1}}));
}

TEST(OneForwardOneBackward, RefusesImpossibleShapes) {
  EXPECT_THROW(one_forward_one_backward({.encoder_stages = -1}), LogicError);
  EXPECT_THROW(one_forward_one_backward({.decoder_stages = 0}), LogicError);
  EXPECT_THROW(one_forward_one_backward({.num_micro_batches = 0}), LogicError);
  EXPECT_THROW(zero_bubble_h1({.decoder_stages = 0}), LogicError);
}

TEST(MaxInFlight, CountsUntilTheWeightsAreDone) {
  EXPECT_EQ(max_in_flight({}), 0);
  EXPECT_EQ(max_in_flight({{forward, 0, -1}, {backward, 0, -1}, {forward, 1, -1}, {backward, 1, -1}}), 1);
  EXPECT_EQ(max_in_flight({{forward, 0, -1}, {forward, 1, -1}, {backward, 0, -1}, {backward, 1, -1}}), 2);
  EXPECT_EQ(
      max_in_flight({{forward, 0, -1}, {backward_input, 0, -1}, {forward, 1, -1}, {backward_weight, 0, -1}}),
      2);
}

TEST(ToString, NamesActionMicroBatchAndPeer) {
  EXPECT_EQ(to_string(Instruction{forward, 3, -1}), "forward of micro-batch 3");
  EXPECT_EQ(to_string(Instruction{send_memory, 0, 2}), "send_memory of micro-batch 0 to stage 2");
  EXPECT_EQ(to_string(Instruction{receive_gradient, 1, 4}), "receive_gradient of micro-batch 1 from stage 4");
  EXPECT_EQ(to_string(Instruction{reduce_gradients, -1, -1}), "reduce_gradients");
}

}  // namespace
}  // namespace red::parallel
