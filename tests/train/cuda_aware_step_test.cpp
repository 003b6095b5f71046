// Whole steps with GPU memory given to MPI (parallel.transport = cuda_aware), over what stands for such an
// MPI, against the same steps staged through host memory: bit for bit, as both add in the order of ranks.
#include <gtest/gtest.h>

#include "fakes/cuda_aware_mpi.hpp"
#include "parallel/device_communicator.hpp"
#include "train/device_steps.hpp"

namespace red::test {
namespace {

using model::Kind;
using parallel::Transport;

std::vector<StepCase> cases(int num_ranks) {
  if (num_ranks == 2)
    return {
        {Kind::red, {2, 1, 0, 1, false}}, {Kind::red, {1, 1, 1, 1, false}}, {Kind::dec, {1, 2, 0, 1, true}}};
  return {
      {Kind::red, {2, 1, 1, 1, false}}, {Kind::dec, {1, 2, 0, 2, true}}, {Kind::red, {1, 1, 2, 2, false}}};
}

class CudaAwareStepTest : public testing::Test {
 protected:
  Outcome train(const StepCase& which, Transport transport) {
    const auto world = parallel::device_communicator(mpi_, stream_, {transport});
    return train_tiny(tiny_config(which), *world, stream_, 2);
  }

  parallel::MpiEnvironment mpi_;
  Stream stream_{1};
};

TEST_F(CudaAwareStepTest, IsTheStagedOne) {
  for (const StepCase& which : cases(mpi_.size())) {
    SCOPED_TRACE(which.layout.to_string());
    const int64_t before = cuda_on_cpu::device_messages();
    const Outcome staged = train(which, Transport::staged);
    EXPECT_EQ(cuda_on_cpu::device_messages(), before);
    const Outcome aware = train(which, Transport::cuda_aware);
    EXPECT_GT(cuda_on_cpu::device_messages(), before);
    expect_same(aware, staged);
  }
}

}  // namespace
}  // namespace red::test
