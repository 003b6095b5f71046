// What ranks' calls look like that go together, and each way in which they may not.
#include "parallel/call_order.hpp"

#include <gtest/gtest.h>

#include <algorithm>

namespace red::parallel {
namespace {

/// Writes down what ranks call.
class CallOrder : public testing::Test {
 protected:
  explicit CallOrder(int num_ranks = 4) : logs_(static_cast<std::size_t>(num_ranks)) {}

  /// A communicator of these ranks, on each of them.
  int64_t group(const std::string& name, const std::vector<int32_t>& ranks) {
    ++num_groups_;
    for (const int32_t rank : ranks) log(rank).groups.push_back({num_groups_, name, ranks});
    return num_groups_;
  }
  void collective(int rank, int64_t id, CallKind kind = CallKind::all_reduce, int64_t count = 8,
                  ReduceOp op = ReduceOp::sum) {
    log(rank).calls.push_back({index(rank, id), kind, DType::fp32, op, 0, 0, count, -1});
  }
  /// `peer` is a rank of all.
  int64_t message(int rank, int64_t id, CallKind kind, int peer, int tag = 1, int64_t count = 8) {
    const auto& ranks = log(rank).groups[static_cast<std::size_t>(index(rank, id))].ranks;
    const auto place = static_cast<int32_t>(std::find(ranks.begin(), ranks.end(), peer) - ranks.begin());
    log(rank).calls.push_back({index(rank, id), kind, DType::fp32, ReduceOp::sum, place, tag, count, -1});
    return static_cast<int64_t>(log(rank).calls.size()) - 1;
  }
  void wait(int rank, int64_t call) {
    log(rank).calls.push_back({0, CallKind::wait, DType::fp32, ReduceOp::sum, 0, 0, 0, call});
  }
  std::string conflict() const { return parallel::conflict(logs_); }

 private:
  CallLog& log(int rank) { return logs_[static_cast<std::size_t>(rank)]; }
  int32_t index(int rank, int64_t id) {
    const auto& groups = log(rank).groups;
    const auto found =
        std::find_if(groups.begin(), groups.end(), [&](const CallGroup& g) { return g.id == id; });
    return static_cast<int32_t>(found - groups.begin());
  }

  std::vector<CallLog> logs_;
  int64_t num_groups_ = 0;
};

TEST_F(CallOrder, NothingGoesTogether) {
  group("world", {0, 1, 2, 3});
  EXPECT_EQ(conflict(), "");
}

TEST_F(CallOrder, TheSameOnAllRanksGoesTogether) {
  const int64_t data0 = group("data (ranks 0, 1)", {0, 1}), data1 = group("data (ranks 2, 3)", {2, 3}),
                tensor = group("tensor (ranks 0, 1)", {0, 1});
  for (int i = 0; i < 3; ++i) {
    for (const int rank : {0, 1}) {
      collective(rank, data0, CallKind::reduce_scatter);
      collective(rank, tensor);
    }
    for (const int rank : {2, 3}) collective(rank, data1, CallKind::all_gather, 5);
  }
  EXPECT_EQ(conflict(), "");
}

TEST_F(CallOrder, AnotherOperationIsTold) {
  const int64_t world = group("world", {0, 1, 2, 3});
  for (int rank = 0; rank < 4; ++rank) {
    collective(rank, world);
    collective(rank, world, rank == 2 ? CallKind::all_gather : CallKind::reduce_scatter);
  }
  EXPECT_EQ(
      conflict(),
      "as number 2 on communicator world rank 0 calls reduce-scatter of 8 fp32, and rank 2 all-gather of 8 "
      "fp32");
}

TEST_F(CallOrder, AnotherCountIsTold) {
  const int64_t data = group("data (ranks 1, 3)", {1, 3});
  collective(1, data);
  collective(3, data, CallKind::all_reduce, 7);
  EXPECT_EQ(conflict(),
            "as number 1 on communicator data (ranks 1, 3) rank 1 calls all-reduce of 8 fp32, and rank 3 "
            "all-reduce of 7 fp32");
}

TEST_F(CallOrder, AnotherReductionIsTold) {
  const int64_t data = group("data", {1, 3});
  collective(1, data);
  collective(3, data, CallKind::all_reduce, 8, ReduceOp::max);
  EXPECT_NE(conflict().find("rank 3 all-reduce (max) of 8 fp32"), std::string::npos) << conflict();
}

TEST_F(CallOrder, ARankThatCallsLessIsTold) {
  const int64_t world = group("world", {0, 1, 2, 3});
  for (int rank = 0; rank < 4; ++rank) {
    collective(rank, world);
    if (rank != 3) collective(rank, world, CallKind::barrier, 0);
  }
  EXPECT_EQ(conflict(), "as number 2 on communicator world rank 0 calls barrier, and rank 3 nothing");
}

TEST_F(CallOrder, TwoCommunicatorsInOtherOrdersAreACircle) {
  const int64_t data = group("data", {0, 1}), tensor = group("tensor", {0, 1});
  collective(0, data);
  collective(0, tensor, CallKind::all_gather);
  collective(1, tensor, CallKind::all_gather);
  collective(1, data);
  const std::string text = conflict();
  EXPECT_NE(text.find("these calls can wait for each other in a circle:"), std::string::npos) << text;
  EXPECT_NE(text.find("\n  rank 0: all-reduce of 8 fp32 on data, and then all-gather of 8 fp32 on tensor"),
            std::string::npos)
      << text;
  EXPECT_NE(text.find("\n  rank 1: all-gather of 8 fp32 on tensor, and then all-reduce of 8 fp32 on data"),
            std::string::npos)
      << text;
}

// Each pair of ranks agrees on the one communicator that it shares.
TEST_F(CallOrder, ACircleOverFourRanksAndFourCommunicatorsIsFound) {
  std::vector<int64_t> pairs;
  for (int32_t r = 0; r < 4; ++r) pairs.push_back(group(fmt::format("pair {}", r), {r, (r + 1) % 4}));
  for (int r = 0; r < 4; ++r) {
    collective(r, pairs[static_cast<std::size_t>(r)]);
    collective(r, pairs[static_cast<std::size_t>((r + 3) % 4)]);
  }
  const std::string text = conflict();
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 4) << text;
  for (int r = 0; r < 4; ++r) {
    EXPECT_NE(text.find(fmt::format("\n  rank {}: all-reduce of 8 fp32 on pair {}, and then all-reduce of 8 "
                                    "fp32 on pair {}",
                                    r, r, (r + 3) % 4)),
              std::string::npos)
        << text;
  }
}

TEST_F(CallOrder, AChainOverFourRanksIsNone) {
  std::vector<int64_t> pairs;
  for (int32_t r = 0; r < 4; ++r) pairs.push_back(group(fmt::format("pair {}", r), {r, (r + 1) % 4}));
  collective(0, pairs[0]);
  collective(0, pairs[3]);
  for (int r = 1; r < 4; ++r) {
    collective(r, pairs[static_cast<std::size_t>(r - 1)]);
    collective(r, pairs[static_cast<std::size_t>(r)]);
  }
  EXPECT_EQ(conflict(), "");
}

TEST_F(CallOrder, MessagesThatCrossGoTogether) {
  const int64_t pipeline = group("pipeline", {0, 2});
  const int64_t there = message(0, pipeline, CallKind::send, 2),
                back = message(0, pipeline, CallKind::receive, 2, 3);
  const int64_t here = message(2, pipeline, CallKind::send, 0, 3),
                in = message(2, pipeline, CallKind::receive, 0);
  wait(0, there);
  wait(0, back);
  wait(2, here);
  wait(2, in);
  EXPECT_EQ(conflict(), "");
}

TEST_F(CallOrder, RanksThatBothWaitForTheirSendFirstAreACircle) {
  const int64_t pipeline = group("pipeline", {0, 2});
  for (const int rank : {0, 2}) {
    const int other = 2 - rank;
    wait(rank, message(rank, pipeline, CallKind::send, other));
    wait(rank, message(rank, pipeline, CallKind::receive, other));
  }
  const std::string text = conflict();
  EXPECT_NE(
      text.find(
          "\n  rank 0: the wait for send of 8 fp32 to rank 2, tag 1, on pipeline, and then receive of 8 "
          "fp32 from rank 2, tag 1, on pipeline"),
      std::string::npos)
      << text;
  EXPECT_NE(text.find("\n  rank 2: the wait for send"), std::string::npos) << text;
}

// Rank 0 sums before it receives what rank 2 sends before it sums.
TEST_F(CallOrder, AMessageAndACollectiveCanBeACircle) {
  const int64_t pipeline = group("pipeline", {0, 2}), world = group("world", {0, 2});
  collective(0, world);
  wait(0, message(0, pipeline, CallKind::receive, 2));
  wait(2, message(2, pipeline, CallKind::send, 0));
  collective(2, world);
  const std::string text = conflict();
  EXPECT_NE(text.find("\n  rank 0: all-reduce of 8 fp32 on world, and then receive"), std::string::npos)
      << text;
  EXPECT_NE(
      text.find("\n  rank 2: the wait for send of 8 fp32 to rank 0, tag 1, on pipeline, and then all-reduce"),
      std::string::npos)
      << text;
}

TEST_F(CallOrder, AMessageOfAnotherLengthIsTold) {
  const int64_t pipeline = group("pipeline", {1, 3});
  message(1, pipeline, CallKind::send, 3, 2, 100);
  message(3, pipeline, CallKind::receive, 1, 2, 100);
  message(1, pipeline, CallKind::send, 3, 2, 100);
  message(3, pipeline, CallKind::receive, 1, 2, 99);
  EXPECT_EQ(
      conflict(),
      "on communicator pipeline, of the messages of tag 2 from rank 1 to rank 3, number 2: rank 1 calls send "
      "of 100 fp32, and rank 3 receive of 99 fp32");
}

TEST_F(CallOrder, AMessageThatNobodyReceivesIsTold) {
  const int64_t pipeline = group("pipeline", {1, 3});
  message(1, pipeline, CallKind::send, 3, 2);
  message(3, pipeline, CallKind::receive, 1, 3);
  EXPECT_EQ(
      conflict(),
      "on communicator pipeline, of the messages of tag 2 from rank 1 to rank 3, number 1: rank 1 calls send "
      "of 8 fp32, and rank 3 nothing");
}

}  // namespace
}  // namespace red::parallel
