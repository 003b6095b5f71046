// What NCCL connects, and when: everything before the first step, whatever the layout and schedule, so that
// no step allocates on the device or waits for ranks that are being connected.
#include <gtest/gtest.h>

#include "fakes/nccl_state.hpp"
#include "parallel/checked_communicator.hpp"
#include "parallel/nccl_communicator.hpp"
#include "train/device_steps.hpp"

namespace red::test {
namespace {

using cuda_on_cpu::nccl_counts;
using parallel::PipelineSchedule;

/// Several stages in every way, and all axes.
std::vector<StepCase> cases(int num_ranks) {
  using model::Kind;
  constexpr auto zb_h1 = PipelineSchedule::zero_bubble_h1, interleaved = PipelineSchedule::interleaved;
  switch (num_ranks) {
    case 2:
      return {{Kind::red, {1, 1, 1, 1, false}},
              {Kind::dec, {1, 1, 0, 2, false}, zb_h1},
              {Kind::dec, {1, 1, 0, 2, false}, interleaved},
              {Kind::dec, {1, 2, 0, 1, true}},
              {Kind::red, {2, 1, 0, 1, false}}};
    case 3:
      return {{Kind::red, {1, 1, 1, 2, false}},
              {Kind::red, {1, 1, 2, 1, false}, zb_h1},
              {Kind::red, {1, 1, 1, 2, false}, interleaved}};
    default:
      return {{Kind::red, {2, 1, 1, 1, false}},
              {Kind::dec, {1, 2, 0, 2, true}, zb_h1},
              {Kind::red, {1, 1, 2, 2, false}, interleaved}};
  }
}

class NcclConnectionsTest : public testing::Test {
 protected:
  parallel::MpiEnvironment mpi_;
  Stream stream_{1};
};

TEST_F(NcclConnectionsTest, AStepConnectsNobody) {
  for (const StepCase& which : cases(mpi_.size())) {
    SCOPED_TRACE(which.layout.to_string());
    parallel::NcclCommunicator world(mpi_.world(), mpi_.context(), stream_, {});
    TinyEngine tiny(tiny_config(which), world, stream_);
    const auto connected = [] { return std::pair(nccl_counts().communicators, nccl_counts().connections); };
    const auto before = connected();
    const int64_t bytes = nccl_counts().bytes;
    tiny.step(0);
    tiny.engine().score(tiny.batches(0).front());
    tiny.engine().hidden(tiny.batches(0).front());
    tiny.step(1);
    EXPECT_EQ(connected(), before);
    EXPECT_GT(nccl_counts().bytes, bytes);
  }
}

// An engine that does not train sends on fewer routes, and one that does may come behind it.
TEST_F(NcclConnectionsTest, WhatDoesNotTrainConnectsWhatItNeeds) {
  const StepCase which = cases(mpi_.size()).front();
  const config::RunConfig config = tiny_config(which);
  parallel::NcclCommunicator world(mpi_.world(), mpi_.context(), stream_, {});
  parallel::Mesh mesh(config.parallel, world, model::layout_limits(config.model));
  const data::SyntheticProvider provider = small_provider(config.model.kind);
  const train::SampleLengths lengths{provider.max_encoder_length(), provider.max_decoder_length()};
  std::vector<data::Sample> samples(1);
  provider.get(0, samples[0]);
  data::MicroBatch batch;
  data::pack(samples, train::decoder_positions(config.model), batch);
  int64_t connections[2];
  for (const bool trains : {false, true}) {
    train::Engine engine(
        trains ? train::training_options(config, lengths) : train::evaluation_options(config, lengths, 1, 1),
        mesh, stream_);
    const int64_t before = connections[trains ? 1 : 0] = nccl_counts().connections;
    engine.score(batch);
    EXPECT_EQ(nccl_counts().connections, before);
    stream_.synchronize();
    stream_.set_progress_hook({});
  }
  EXPECT_LT(connections[0], connections[1]);
}

// Of one token only the first of two tensor ranks has its share; what the other one receives is empty, and
// received once.
TEST_F(NcclConnectionsTest, AnEmptyMessageIsReceivedOnce) {
  if (mpi_.size() != 4) GTEST_SKIP() << "two stages of two tensor ranks";
  const config::RunConfig config = tiny_config({model::Kind::dec, {1, 2, 0, 2, true}});
  parallel::CheckedCommunicator world(std::make_unique<parallel::NcclCommunicator>(
      mpi_.world(), mpi_.context(), stream_, parallel::NcclOptions()));
  parallel::Mesh mesh(config.parallel, world, model::layout_limits(config.model));
  const data::SyntheticProvider provider(0, 1, kVocabulary, 7);
  train::Engine engine(train::training_options(config, {0, 1}), mesh, stream_);
  train::BatchLoader loader(provider, train::decoder_positions(config.model), config.train.global_batch, 1, 1,
                            0);
  engine.initialize_parameters();
  EXPECT_NO_THROW(engine.train_step(loader.load(0), 1e-3));
  stream_.set_progress_hook({});
}

}  // namespace
}  // namespace red::test
