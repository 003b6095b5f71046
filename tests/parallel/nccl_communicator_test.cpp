// What is NCCL's own, beside device_communicator_test: the order of streams, messages that cross, types,
// checks, and which communicator a program gets.
#include "parallel/nccl_communicator.hpp"

#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <thread>
#include <vector>

#include "parallel/device_communicator.hpp"
#include "parallel/staged_communicator.hpp"
#include "parallel/traced_communicator.hpp"
#include "support/backend.hpp"

namespace red::parallel {
namespace {

class NcclCommunicatorTest : public testing::Test {
 protected:
  int rank() const { return world_.rank(); }
  int size() const { return world_.size(); }
  int next() const { return (rank() + 1) % size(); }
  int last() const { return (rank() + size() - 1) % size(); }

  MpiEnvironment mpi_;
  Stream stream_{1};
  NcclCommunicator world_{mpi_.world(), mpi_.context(), stream_, NcclOptions()};
};

/// i + 1 in every place of rank i's tensor.
template <class T>
test::DeviceArray<T> numbered(int rank, std::size_t count) {
  return test::DeviceArray<T>(std::vector<T>(count, static_cast<T>(static_cast<float>(rank + 1))));
}

template <class T>
void check_all_ops(Communicator& world) {
  const int n = world.size();
  for (const auto& [op, expected] :
       {std::pair{ReduceOp::sum, n * (n + 1) / 2}, {ReduceOp::max, n}, {ReduceOp::min, 1}}) {
    const auto x = numbered<T>(world.rank(), 13);
    Request request = world.all_reduce(x.tensor(1, 13), op);
    world.wait(request, "test");
    EXPECT_EQ(x.read(), std::vector<T>(13, static_cast<T>(static_cast<float>(expected))));
  }
}

TEST_F(NcclCommunicatorTest, EveryTypeAndReduction) {
  check_all_ops<float>(world_);
  check_all_ops<double>(world_);
  check_all_ops<int32_t>(world_);
  check_all_ops<bf16>(world_);
}

TEST_F(NcclCommunicatorTest, SumsAreTheSameOnEveryRank) {
  std::vector<float> values(1001);
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] =
        std::ldexp(1.0F + 1.0F / static_cast<float>(i + 2), (static_cast<int>(i) * 7 + rank() * 5) % 20);
  const test::DeviceArray<float> x(values);
  Request request = world_.all_reduce(x.tensor(1, 1001), ReduceOp::sum);
  world_.wait(request, "test");
  std::vector<float> own = x.read(), of_first = own;
  request = mpi_.world().broadcast(make_tensor(of_first.data(), 1, 1001), 0);
  mpi_.world().wait(request, "test");
  EXPECT_EQ(own, of_first);
}

// Nothing but stream order holds this together: the host never waits before the end.
TEST_F(NcclCommunicatorTest, TheComputeStreamIsHeldAndNotTheHost) {
  constexpr int64_t count = 4096;
  const Buffer a(sizeof(float) * count), b(sizeof(float) * count);
  const auto tensor = [&](const Buffer& of) {
    return make_tensor(reinterpret_cast<float*>(of.data()), 1, count);
  };
  const std::vector<float> ones(count, 1.0F);
  for (int round = 0; round < 5; ++round) {
    copy_to_device(stream_, a.data(), ones.data(), a.num_bytes());
    Request request = world_.all_reduce(tensor(a), ReduceOp::sum);
    world_.wait(request, "first");
    copy_on_device(stream_, b.data(), a.data(), a.num_bytes());
    request = world_.all_reduce(tensor(b), ReduceOp::sum);
    world_.wait(request, "second");
    copy_on_device(stream_, a.data(), b.data(), a.num_bytes());
  }
  stream_.synchronize();
  const auto expected = static_cast<float>(size() * size());
  EXPECT_EQ(test::elements_of<float>(tensor(a)), std::vector<float>(count, expected));
}

// Both directions at once, in an order that would hang if a message held up another one.
TEST_F(NcclCommunicatorTest, MessagesCross) {
  if (size() == 1) return;
  for (const bool wait_for_sends_first : {true, false}) {
    // All of it now: to take memory waits for the device, and the device for the other rank, which does so
    // too.
    const auto out = numbered<float>(rank(), 777), in = numbered<float>(-1, 777),
               returned = numbered<float>(-1, 777);
    Request receive = world_.receive(in.tensor(1, 777), last(), 1);
    Request send = world_.send(out.tensor(1, 777), next(), 1);
    Request back = world_.send(out.tensor(1, 777), last(), 2);
    world_.wait(wait_for_sends_first ? send : receive, "one of two");
    world_.wait(wait_for_sends_first ? receive : send, "the other");
    Request there = world_.receive(returned.tensor(1, 777), next(), 2);
    world_.wait(there, "back");
    world_.wait(back, "back");
    EXPECT_EQ(in.read(), std::vector<float>(777, static_cast<float>(last() + 1)));
    EXPECT_EQ(returned.read(), std::vector<float>(777, static_cast<float>(next() + 1)));
  }
}

TEST_F(NcclCommunicatorTest, TagsMayBeReceivedInAnotherOrder) {
  if (size() == 1) return;
  constexpr int tags = 4;
  std::vector<test::DeviceArray<int32_t>> out, in;
  for (int tag = 0; tag < tags; ++tag) {
    out.emplace_back(std::vector<int32_t>(100, 10 * rank() + tag));
    in.emplace_back(std::vector<int32_t>(100, -1));
  }
  std::vector<Request> sends;
  for (int tag = 0; tag < tags; ++tag) sends.push_back(world_.send(out[tag].tensor(1, 100), next(), tag));
  for (int tag = tags - 1; tag >= 0; --tag) {
    Request receive = world_.receive(in[tag].tensor(1, 100), last(), tag);
    world_.wait(receive, "test");
  }
  for (Request& send : sends) world_.wait(send, "test");
  for (int tag = 0; tag < tags; ++tag)
    EXPECT_EQ(in[tag].read(), std::vector<int32_t>(100, 10 * last() + tag));
}

// As the pipeline does with gradients: the receive is posted long before anybody sends, and the host waits
// for other ranks by other ways meanwhile.
TEST_F(NcclCommunicatorTest, APostedReceiveHoldsUpNobody) {
  if (size() == 1) return;
  const auto out = numbered<float>(rank(), 50), in = numbered<float>(-1, 50),
             sum = numbered<float>(rank(), 50);
  Request receive = world_.receive(in.tensor(1, 50), last(), 3);
  Request reduce = world_.all_reduce(sum.tensor(1, 50), ReduceOp::sum);
  world_.wait(reduce, "test");
  stream_.synchronize();
  Request barrier = world_.barrier();
  world_.wait(barrier, "test");
  Request send = world_.send(out.tensor(1, 50), next(), 3);
  world_.wait(send, "test");
  stream_.synchronize();  // the other side has not waited for it yet
  barrier = world_.barrier();
  world_.wait(barrier, "test");
  world_.wait(receive, "test");
  EXPECT_EQ(in.read(), std::vector<float>(50, static_cast<float>(last() + 1)));
}

TEST_F(NcclCommunicatorTest, NothingIsAnOperationToo) {
  const auto x = numbered<float>(rank(), 4);
  Request request = world_.all_reduce(x.tensor(0, 4), ReduceOp::sum);
  world_.wait(request, "nothing");
  EXPECT_FALSE(request);
}

TEST_F(NcclCommunicatorTest, WithoutOverlapTheBitsAreTheSame) {
  NcclOptions options;
  options.overlap = false;
  std::vector<std::vector<float>> results;
  for (const bool overlap : {true, false}) {
    options.overlap = overlap;
    std::vector<float> values(999);
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = 1.0F / static_cast<float>(i + 1 + rank());
    const test::DeviceArray<float> x(values);
    NcclCommunicator world(mpi_.world(), mpi_.context(), stream_, options);
    Request request = world.all_reduce(x.tensor(1, 999), ReduceOp::sum);
    world.wait(request, "test");
    results.push_back(x.read());
  }
  EXPECT_EQ(results[0], results[1]);
}

// What is done at the call leaves no request that would end it in a trace.
TEST_F(NcclCommunicatorTest, ATraceEndsWhatIsDoneAtTheCall) {
  NcclOptions options;
  options.overlap = false;
  NcclCommunicator over_nccl(mpi_.world(), mpi_.context(), stream_, options);
  TraceLog log;
  TracedCommunicator world(over_nccl, log);
  const auto x = numbered<float>(rank(), 4);
  log.start();
  Request request = world.all_reduce(x.tensor(1, 4), ReduceOp::sum);
  world.wait(request, "test");
  if (size() > 1) {
    Request send = world.send(x.tensor(0, 4), next(), 1), receive = world.receive(x.tensor(0, 4), last(), 1);
    world.wait(send, "test");
    world.wait(receive, "test");
  }
  const double after = TraceLog::now();
  std::this_thread::sleep_for(std::chrono::milliseconds(1));
  log.stop();
  EXPECT_EQ(log.transfers().size(), size() > 1 ? 3U : 1U);
  for (const TraceTransfer& transfer : log.transfers()) {
    EXPECT_GE(transfer.end, transfer.begin) << transfer.name;
    EXPECT_LE(transfer.end, after) << transfer.name;
  }
}

TEST_F(NcclCommunicatorTest, WrongShapesAreRefused) {
  const auto x = numbered<float>(rank(), 24 * static_cast<std::size_t>(size()));
  const auto y = numbered<float>(rank(), 3);
  const Tensor all = x.tensor(size(), 24);
  EXPECT_THROW((void)world_.reduce_scatter(y.tensor(1, 3), all), LogicError);
  EXPECT_THROW((void)world_.all_gather(all, y.tensor(1, 3)), LogicError);
  EXPECT_THROW((void)world_.all_reduce(x.tensor(2 * size(), 12).col_range(0, 1), ReduceOp::sum), LogicError);
  EXPECT_THROW((void)world_.send(y.tensor(1, 3), rank(), 0), LogicError);
  EXPECT_THROW((void)world_.receive(y.tensor(1, 3), size(), 0), LogicError);
  EXPECT_THROW((void)world_.broadcast(y.tensor(1, 3), size()), LogicError);
}

// Every rank to the next one; the channel back is not announced.
TEST_F(NcclCommunicatorTest, BehindConnectOnlyItsRoutesHaveMessages) {
  if (size() == 1) return;
  std::vector<Route> routes;
  for (int r = 0; r < size(); ++r) routes.push_back({r, (r + 1) % size(), 5});
  world_.connect(routes);
  world_.connect(routes);  // again: nothing is left to do
  const auto out = numbered<float>(rank(), 9), in = numbered<float>(-1, 9);
  Request send = world_.send(out.tensor(1, 9), next(), 5),
          receive = world_.receive(in.tensor(1, 9), last(), 5);
  world_.wait(send, "test");
  world_.wait(receive, "test");
  EXPECT_EQ(in.read(), std::vector<float>(9, static_cast<float>(last() + 1)));
  try {
    (void)world_.send(out.tensor(1, 9), next(), 6);
    ADD_FAILURE() << "a message without a connection";
  } catch (const LogicError& error) {
    EXPECT_NE(std::string(error.what())
                  .find(fmt::format(
                      "on communicator world no connection was made for messages of tag 6 from its rank "
                      "{} to its rank {}",
                      rank(), next())),
              std::string::npos)
        << error.what();
  }
  EXPECT_THROW((void)world_.receive(in.tensor(1, 9), last(), 6), LogicError);
}

// Routes in which ranks would wait for each other in a circle, were they connected as they come.
TEST_F(NcclCommunicatorTest, RoutesMayBeGivenInAnyOrder) {
  if (size() == 1) return;
  std::vector<Route> routes;
  for (const int tag : {2, 1}) {
    for (int r = size() - 1; r >= 0; --r) {
      routes.push_back({r, (r + 1) % size(), tag});
      routes.push_back({(r + 1) % size(), r, tag + 2});
    }
  }
  world_.connect(routes);
  const auto out = numbered<float>(rank(), 9), in = numbered<float>(-1, 9);
  Request send = world_.send(out.tensor(1, 9), last(), 3),
          receive = world_.receive(in.tensor(1, 9), next(), 3);
  world_.wait(send, "test");
  world_.wait(receive, "test");
  EXPECT_EQ(in.read(), std::vector<float>(9, static_cast<float>(next() + 1)));
}

TEST_F(NcclCommunicatorTest, AProgramGetsItWhereEachRankHasAGpu) {
  const auto is_nccl = [&](Transport transport) {
    const auto world = device_communicator(mpi_, stream_, {transport, CallCheck::no});
    return dynamic_cast<NcclCommunicator*>(world.get()) != nullptr;
  };
  EXPECT_EQ(is_nccl(Transport::automatic), size() > 1);
  EXPECT_EQ(is_nccl(Transport::nccl), size() > 1);
  EXPECT_FALSE(is_nccl(Transport::staged));
}

}  // namespace
}  // namespace red::parallel
