// Tensors in device memory against the same operation on host memory: bit for bit where both add in the same
// order, as two ranks always do. Linked once with each communicator (device_world.hpp).
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <numeric>
#include <vector>

#include "parallel/device_world.hpp"
#include "support/backend.hpp"

namespace red::parallel {
namespace {

using Values = std::vector<float>;

class DeviceCommunicatorTest : public testing::Test {
 protected:
  int rank() const { return world_.rank(); }
  int size() const { return world_.size(); }

  /// Other values on every rank, and in every tensor.
  Values values(std::size_t count, float offset) const {
    Values result(count);
    for (std::size_t i = 0; i < count; ++i)
      result[i] = offset + 1.0F / static_cast<float>(static_cast<int>(i) + 1 + 7 * rank());
    return result;
  }
  void finish(Communicator& ranks, Request request) { ranks.wait(request, "test"); }

  /// `run` on tensors of both kinds of memory that begin with the same values ends with the same values.
  void compare(std::vector<Values> tensors,
               const std::function<Request(Communicator&, const std::vector<Tensor>&)>& run) {
    std::vector<Values> on_host = tensors;
    std::vector<Tensor> host_tensors, device_tensors;
    std::vector<test::DeviceArray<float>> on_device;
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      const auto count = static_cast<int64_t>(tensors[i].size());
      host_tensors.push_back(make_tensor(on_host[i].data(), 1, count));
      on_device.emplace_back(tensors[i]);
      device_tensors.push_back(on_device.back().tensor(1, count));
    }
    finish(mpi_.world(), run(mpi_.world(), host_tensors));
    finish(world_, run(world_, device_tensors));
    for (std::size_t i = 0; i < tensors.size(); ++i) expect_same(on_device[i].read(), on_host[i]);
  }
  /// Sums of up to four numbers below 4.
  void expect_same(const Values& got, const Values& expected) const {
    if (test::adds_in_order_of_ranks() || size() <= 2) {
      EXPECT_EQ(got, expected);
      return;
    }
    ASSERT_EQ(got.size(), expected.size());
    float worst = 0.0F;
    for (std::size_t i = 0; i < got.size(); ++i) worst = std::max(worst, std::abs(got[i] - expected[i]));
    EXPECT_LE(worst, 4 * 0x1p-22F);  // a rounding of 2^-24 x 16 for each addition, in both orders
  }

  MpiEnvironment mpi_;
  Stream stream_{1};
  std::unique_ptr<Communicator> owner_ = test::make_device_world(mpi_, stream_);
  Communicator& world_ = *owner_;
};

constexpr std::size_t kSizes[] = {1, 7, 100003};

TEST_F(DeviceCommunicatorTest, AllReduce) {
  for (const std::size_t n : kSizes) {
    for (const ReduceOp op : {ReduceOp::sum, ReduceOp::max, ReduceOp::min}) {
      compare({values(n, 0.0F)},
              [&](Communicator& ranks, const auto& x) { return ranks.all_reduce(x[0], op); });
    }
  }
}

TEST_F(DeviceCommunicatorTest, ReduceScatter) {
  for (const std::size_t n : kSizes) {
    compare({values(n, 0.0F), values(n * size(), 1.0F)},
            [](Communicator& ranks, const auto& x) { return ranks.reduce_scatter(x[0], x[1]); });
    // Into its own row of what is sent. The other rows of it may be anything then.
    test::DeviceArray<float> all(values(n * size(), 2.0F));
    Values host = values(n * size(), 2.0F), sum(n);
    finish(mpi_.world(),
           mpi_.world().reduce_scatter(make_tensor(sum.data(), 1, static_cast<int64_t>(n)),
                                       make_tensor(host.data(), size(), static_cast<int64_t>(n))));
    const Tensor rows = all.tensor(size(), static_cast<int64_t>(n));
    finish(world_, world_.reduce_scatter(rows.row_range(rank(), 1), rows));
    expect_same(test::elements_of<float>(rows.row_range(rank(), 1)), sum);
  }
}

TEST_F(DeviceCommunicatorTest, AllGather) {
  for (const std::size_t n : kSizes) {
    compare({values(n * size(), 0.0F), values(n, 1.0F)},
            [](Communicator& ranks, const auto& x) { return ranks.all_gather(x[0], x[1]); });
    compare({values(n * size(), 0.0F)}, [&](Communicator& ranks, const auto& x) {
      Tensor rows = x[0];
      rows.rows = size();
      rows.cols = rows.row_stride = static_cast<int64_t>(n);
      return ranks.all_gather(rows, rows.row_range(rank(), 1));
    });
  }
}

TEST_F(DeviceCommunicatorTest, Broadcast) {
  for (const std::size_t n : kSizes) {
    compare({values(n, 0.0F)},
            [&](Communicator& ranks, const auto& x) { return ranks.broadcast(x[0], size() - 1); });
  }
}

// Each rank has many messages under way at once, in both directions.
TEST_F(DeviceCommunicatorTest, MessagesInARing) {
  if (size() == 1) return;
  const int next = (rank() + 1) % size(), last = (rank() + size() - 1) % size();
  std::vector<test::DeviceArray<float>> out, in;
  std::vector<Request> requests;
  for (const std::size_t n : kSizes) {
    out.emplace_back(values(n, static_cast<float>(rank())));
    in.emplace_back(Values(n));
  }
  for (std::size_t i = 0; i < out.size(); ++i) {
    const auto count = static_cast<int64_t>(kSizes[i]);
    requests.push_back(world_.receive(in[i].tensor(1, count), last, 3));
    requests.push_back(world_.send(out[i].tensor(1, count), next, 3));
  }
  for (Request& request : requests) {
    while (!world_.test(request)) {
    }
  }
  for (Request& request : requests) world_.wait(request, "test");
  for (std::size_t i = 0; i < in.size(); ++i) {
    Values expected(kSizes[i]);
    for (std::size_t j = 0; j < expected.size(); ++j)
      expected[j] = static_cast<float>(last) + 1.0F / static_cast<float>(static_cast<int>(j) + 1 + 7 * last);
    EXPECT_EQ(in[i].read(), expected);
  }
}

TEST_F(DeviceCommunicatorTest, WhatAStreamWasGivenBeforeIsSent) {
  const Buffer memory(sizeof(float) * 64);
  const Tensor x = make_tensor(reinterpret_cast<float*>(memory.data()), 1, 64);
  const Values ones(64, 1.0F);
  copy_to_device(stream_, memory.data(), ones.data(), memory.num_bytes());  // not waited for
  finish(world_, world_.all_reduce(x, ReduceOp::sum));
  EXPECT_EQ(test::elements_of<float>(x), Values(64, static_cast<float>(size())));
}

TEST_F(DeviceCommunicatorTest, PartsDoTheSame) {
  const auto half = world_.split(rank() % 2, rank(), "half");
  const test::DeviceArray<float> x(Values(5, 1.0F));
  finish(*half, half->all_reduce(x.tensor(1, 5), ReduceOp::sum));
  EXPECT_EQ(x.read(), Values(5, static_cast<float>(half->size())));
}

TEST_F(DeviceCommunicatorTest, AStepMakesNoNewMemory) {
  const test::DeviceArray<float> x(Values(1000, 1.0F)), y(Values(10, 1.0F));
  const auto step = [&] {
    Request first = world_.all_reduce(x.tensor(1, 1000), ReduceOp::max);
    finish(world_, world_.all_reduce(y.tensor(1, 10), ReduceOp::max));
    world_.wait(first, "test");
  };
  step();
  const std::size_t buffers = num_buffers_made();
  for (int i = 0; i < 5; ++i) step();
  EXPECT_EQ(num_buffers_made(), buffers);
}

TEST_F(DeviceCommunicatorTest, HostMemoryPassesThrough) {
  double x = 1.0;
  finish(world_, world_.all_reduce(make_tensor(&x, 1, 1), ReduceOp::sum));
  EXPECT_EQ(x, size());
}

}  // namespace
}  // namespace red::parallel
