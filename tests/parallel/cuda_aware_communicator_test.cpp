// What CUDA-aware MPI is given as it lies on the device, and what still goes through host memory. The results
// are device_communicator_test's, which this is linked with.
#include <gtest/gtest.h>

#include <vector>

#include "fakes/cuda_aware_mpi.hpp"
#include "parallel/device_world.hpp"
#include "support/backend.hpp"

namespace red::parallel {
namespace {

class CudaAwareCommunicatorTest : public testing::Test {
 protected:
  int64_t device_messages_of(Request request) {
    world_->wait(request, "test");
    return cuda_on_cpu::device_messages() - before_;
  }

  MpiEnvironment mpi_;
  Stream stream_{1};
  std::unique_ptr<Communicator> world_ = test::make_device_world(mpi_, stream_);
  test::DeviceArray<float> x_{std::vector<float>(static_cast<std::size_t>(mpi_.size()) * 5, 1.0F)};
  Tensor rows_ = x_.tensor(mpi_.size(), 5);
  int64_t before_ = cuda_on_cpu::device_messages();
};

TEST_F(CudaAwareCommunicatorTest, GatheringsPassThrough) {
  EXPECT_EQ(device_messages_of(world_->all_gather(rows_, rows_.row_range(mpi_.rank(), 1))),
            2 * (mpi_.size() - 1));
}

TEST_F(CudaAwareCommunicatorTest, MessagesPassThroughAlsoInParts) {
  const auto part = world_->split(0, mpi_.rank(), "part");
  Request receive = part->receive(rows_.row_range(0, 1), (mpi_.rank() + mpi_.size() - 1) % mpi_.size(), 1);
  Request send = part->send(rows_.row_range(1, 1), (mpi_.rank() + 1) % mpi_.size(), 1);
  part->wait(receive, "test");
  EXPECT_EQ(device_messages_of(std::move(send)), 2);
}

// MPI may write what was posted wherever it is called next.
TEST_F(CudaAwareCommunicatorTest, MessagesArriveInsideOtherCalls) {
  const int last = (mpi_.rank() + mpi_.size() - 1) % mpi_.size(), next = (mpi_.rank() + 1) % mpi_.size();
  for (int round = 0; round < 20; ++round) {
    Request receive = world_->receive(rows_.row_range(0, 1), last, 1);
    Request send = world_->send(rows_.row_range(1, 1), next, 1);
    const auto part = world_->split(0, mpi_.rank(), "part");
    Request barrier = part->barrier();
    part->wait(barrier, "test");
    world_->wait(receive, "test");
    world_->wait(send, "test");
  }
}

TEST_F(CudaAwareCommunicatorTest, SumsAndBroadcastsGoThroughHostMemory) {
  EXPECT_EQ(device_messages_of(world_->all_reduce(rows_, ReduceOp::sum)), 0);
  EXPECT_EQ(device_messages_of(world_->reduce_scatter(rows_.row_range(mpi_.rank(), 1), rows_)), 0);
  EXPECT_EQ(device_messages_of(world_->broadcast(rows_, 0)), 0);
}

}  // namespace
}  // namespace red::parallel
