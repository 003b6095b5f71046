// The rate of multiply-adds is the sum of all ranks, one that processors can have, and higher with wide
// vectors.
#include "train/fma_peak.hpp"

#include <gtest/gtest.h>

#include <vector>

#include "parallel/mpi_environment.hpp"
#include "support/every_cpu_target.hpp"

namespace red::test {
namespace {

TEST(FmaPeak, IsTheSameOnEveryRankAndOneOfProcessors) {
  parallel::MpiEnvironment mpi;
  Stream stream(1);
  std::vector<double> rates;  // widest vectors first
  for_every_cpu_target([&] {
    const auto rate = train::fma_peak_gflops(mpi.world(), stream);
    ASSERT_EQ(rate.has_value(), on_cpu());
    if (rate) rates.push_back(*rate);
  });
  if (!on_cpu()) return;
  for (const double rate : rates) {
    EXPECT_GT(rate, 0.05 * mpi.size());            // a busy machine, instrumented code
    EXPECT_LT(rate, 2 * 2 * 16 * 8 * mpi.size());  // two units, 16 lanes, 8 GHz
    double most[1] = {rate};
    parallel::Request request = mpi.world().all_reduce(make_tensor(most, 1, 1), parallel::ReduceOp::max);
    mpi.world().wait(request, "the largest rate");
    EXPECT_EQ(most[0], rate);
  }
#if defined(__x86_64__)
  if (rates.size() > 1) EXPECT_GT(rates.front(), 1.3 * rates.back());  // the baseline has 4 lanes and no FMA
#endif
}

}  // namespace
}  // namespace red::test
