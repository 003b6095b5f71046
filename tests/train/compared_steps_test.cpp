// Steps whose calls are compared between ranks (parallel.check_collectives): those of every layout and
// schedule go together, and one that a rank calls differently ends the step that it is in.
#include <gtest/gtest.h>

#include "parallel/checked_communicator.hpp"
#include "parallel/staged_communicator.hpp"
#include "train/device_steps.hpp"

namespace red::test {
namespace {

using parallel::PipelineSchedule;

class ComparedStepsTest : public testing::Test {
 protected:
  void train(const StepCase& which) {
    SCOPED_TRACE(which.layout.to_string());
    train_tiny(tiny_config(which), world_, stream_, 2);
  }

  /// By messages, which do not notice by themselves that ranks add up in other ways.
  static parallel::MpiOptions by_messages() {
    parallel::MpiOptions options;
    options.shared_memory = false;
    return options;
  }

  parallel::MpiEnvironment mpi_{by_messages()};
  Stream stream_{1};
  parallel::CheckedCommunicator world_{std::make_unique<parallel::StagedCommunicator>(mpi_.world(), stream_)};
};

TEST_F(ComparedStepsTest, EveryLayoutGoesTogether) {
  for (const model::Kind kind : {model::Kind::red, model::Kind::dec}) {
    model::ModelConfig large = small_config(kind).model;
    large.encoder_layers = kind == model::Kind::red ? mpi_.size() : 0;
    large.decoder_layers = large.num_heads = mpi_.size();
    for (const parallel::Layout& layout : layouts(mpi_.size(), large)) {
      train({kind, layout});
      if (layout.num_stages() == 1) continue;
      train({kind, layout, PipelineSchedule::zero_bubble_h1});
      train({kind, layout, PipelineSchedule::interleaved});
    }
  }
}

TEST_F(ComparedStepsTest, ARankThatCallsSomethingElseEndsTheStep) {
  TinyEngine tiny(tiny_config({model::Kind::dec, {mpi_.size(), 1, 0, 1, false}}), world_, stream_);
  tiny.step(0);
  float planted = 1.0F;
  parallel::Request request = world_.all_reduce(
      make_tensor(&planted, 1, 1),
      mpi_.world().rank() == mpi_.size() - 1 ? parallel::ReduceOp::max : parallel::ReduceOp::sum);
  world_.wait(request, "test");
  try {
    (void)tiny.engine().gradients(tiny.batches(1), 0.0);  // which leaves nothing under way
    ADD_FAILURE() << "nobody noticed";
  } catch (const LogicError& error) {
    EXPECT_NE(std::string(error.what())
                  .find(fmt::format(
                      "on communicator world rank 0 calls all-reduce of 1 fp32, and rank {} all-reduce "
                      "(max) of 1 fp32",
                      mpi_.size() - 1)),
              std::string::npos)
        << error.what();
  }
}

}  // namespace
}  // namespace red::test
