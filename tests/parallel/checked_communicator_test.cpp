// Calls that are compared between real ranks: what goes together passes, and what does not is told on every
// rank. (What there is to tell: call_order_test.)
#include "parallel/checked_communicator.hpp"

#include <gtest/gtest.h>

#include "device/stream.hpp"
#include "parallel/mpi_environment.hpp"
#include "parallel/staged_communicator.hpp"

namespace red::parallel {
namespace {

class CheckedCommunicatorTest : public testing::Test {
 protected:
  int rank() const { return world_.rank(); }
  int size() const { return world_.size(); }
  Tensor x(int64_t count = 3) { return make_tensor(values_, 1, count); }

  void finish(Communicator& group, Request request) { group.wait(request, "test"); }
  /// What compare_calls() says; empty when nothing.
  std::string compared() {
    try {
      world_.compare_calls();
    } catch (const LogicError& error) {
      return error.what();
    }
    return "";
  }
  void expect_told(const std::string& words) {
    const std::string text = compared();
    EXPECT_NE(text.find(words), std::string::npos) << text;
    EXPECT_EQ(compared(), "");  // and only once
  }

  /// By messages, which do not notice by themselves that ranks add up in other ways.
  static MpiOptions by_messages() {
    MpiOptions options;
    options.shared_memory = false;
    return options;
  }

  MpiEnvironment mpi_{by_messages()};
  Stream stream_{1};
  CheckedCommunicator world_{std::make_unique<StagedCommunicator>(mpi_.world(), stream_)};
  float values_[8] = {};
};

TEST_F(CheckedCommunicatorTest, WhatGoesTogetherPasses) {
  const auto part = world_.split(rank() % 2, rank(), "part");
  for (int round = 0; round < 3; ++round) {
    finish(world_, world_.all_reduce(x(), ReduceOp::sum));
    finish(*part, part->broadcast(x(), 0));
    if (rank() < 2) {
      Request receive = world_.receive(x(5), 1 - rank(), 1);
      float out[5] = {};
      Request send = world_.send(make_tensor(out, 1, 5), 1 - rank(), 1);
      world_.wait(send, "test");
      world_.wait(receive, "test");
    }
    finish(world_, world_.barrier());
    EXPECT_EQ(compared(), "");
  }
}

TEST_F(CheckedCommunicatorTest, MoreCallsThanAreKeptAreNotCompared) {
  CheckedCommunicator short_of_memory(std::make_unique<StagedCommunicator>(mpi_.world(), stream_), 4);
  const ReduceOp op = rank() == 1 ? ReduceOp::max : ReduceOp::sum;
  for (int i = 0; i < 5; ++i) finish(short_of_memory, short_of_memory.all_reduce(x(), op));
  EXPECT_NO_THROW(short_of_memory.compare_calls());
  finish(short_of_memory, short_of_memory.all_reduce(x(), op));
  EXPECT_THROW(short_of_memory.compare_calls(), LogicError);  // the next ones are
}

TEST_F(CheckedCommunicatorTest, AnotherOperationIsToldOnEveryRank) {
  finish(world_, world_.all_reduce(x(), ReduceOp::sum));
  finish(world_, world_.all_reduce(x(), rank() == 1 ? ReduceOp::max : ReduceOp::sum));
  expect_told(
      "the ranks' operations do not go together: as number 2 on communicator world rank 0 calls all-reduce "
      "of 3 "
      "fp32, and rank 1 all-reduce (max) of 3 fp32");
}

TEST_F(CheckedCommunicatorTest, PartsAreKeptApart) {
  const auto first = world_.split(0, rank(), "first"), second = world_.split(0, rank(), "second");
  // With MPI, nothing hangs: both are begun before either is waited for.
  Communicator &one = rank() == 0 ? *first : *second, &other = rank() == 0 ? *second : *first;
  float more[3] = {};
  Request a = one.all_reduce(x(), ReduceOp::sum);
  Request b = other.all_reduce(make_tensor(more, 1, 3), ReduceOp::sum);
  one.wait(a, "test");
  other.wait(b, "test");
  const std::string text = compared();
  EXPECT_NE(text.find("can wait for each other in a circle:\n  rank"), std::string::npos) << text;
  EXPECT_NE(text.find("all-reduce of 3 fp32 on first (ranks 0, 1"), std::string::npos) << text;
  EXPECT_NE(text.find("all-reduce of 3 fp32 on second (ranks 0, 1"), std::string::npos) << text;
}

TEST_F(CheckedCommunicatorTest, AMessageThatNobodyReceivesIsTold) {
  if (rank() == 0) finish(world_, world_.send(x(2), 1, 4));
  expect_told(
      "of the messages of tag 4 from rank 0 to rank 1, number 1: rank 0 calls send of 2 fp32, and rank 1 "
      "nothing");
  if (rank() == 1) finish(world_, world_.receive(x(2), 0, 4));
  expect_told("number 1: rank 0 calls nothing, and rank 1 receive of 2 fp32");
}

TEST_F(CheckedCommunicatorTest, WhetherCallsAreComparedIsAChoice) {
  const auto compares = [&](CallCheck check) {
    const auto world =
        with_calls_compared(std::make_unique<StagedCommunicator>(mpi_.world(), stream_), check);
    return dynamic_cast<CheckedCommunicator*>(world.get()) != nullptr;
  };
  EXPECT_TRUE(compares(CallCheck::yes));
  EXPECT_FALSE(compares(CallCheck::no));
#ifdef NDEBUG
  EXPECT_FALSE(compares(CallCheck::automatic));
#else
  EXPECT_TRUE(compares(CallCheck::automatic));
#endif
}

}  // namespace
}  // namespace red::parallel
