// Clocks that are far apart are measured within what the exchange says it may be wrong by.
#include "parallel/clock_offset.hpp"

#include <gtest/gtest.h>

#include <chrono>

#include "parallel/mpi_environment.hpp"

namespace red::parallel {
namespace {

TEST(ClockOffsetTest, IsMeasuredWithinItsUncertainty) {
  const MpiEnvironment environment;
  Communicator& world = environment.world();
  const double shift = 1000.0 * world.rank();
  const ClockOffset offset = clock_offset(world, [shift] {
    return shift + std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
  });
  EXPECT_LE(std::abs(offset.seconds - shift), offset.uncertainty_s);
  EXPECT_LT(offset.uncertainty_s, 5.0);
  if (world.rank() == 0) {
    EXPECT_EQ(offset.seconds, 0.0);
  }
}

}  // namespace
}  // namespace red::parallel
