// Learning rates against values worked out by hand.
#include "optim/learning_rate.hpp"

#include <gtest/gtest.h>

namespace red::optim {
namespace {

constexpr double kRounding = 1e-15;  // a few fp64 roundings of rates below 0.02

constexpr ScheduleConfig kCosine{.kind = ScheduleKind::cosine,
                                 .peak = 0.02,
                                 .warmup_steps = 100,
                                 .total_steps = 700,
                                 .final_fraction = 0.1};

TEST(LearningRate, RisesFromZeroToThePeak) {
  EXPECT_EQ(learning_rate(kCosine, 0), 0.0);
  EXPECT_NEAR(learning_rate(kCosine, 1), 0.0002, kRounding);
  EXPECT_NEAR(learning_rate(kCosine, 50), 0.01, kRounding);
  EXPECT_NEAR(learning_rate(kCosine, 99), 0.0198, kRounding);
  EXPECT_EQ(learning_rate(kCosine, 100), 0.02);
}

/// 600 steps of cosine. At thirds of them cos(pi x) is 1/2 and -1/2, so (1 + cos) / 2 is 3/4 and 1/4; the
/// rate is 0.02 (0.1 + 0.9 times that).
TEST(LearningRate, FallsAlongACosine) {
  EXPECT_NEAR(learning_rate(kCosine, 100 + 200), 0.02 * (0.1 + 0.9 * 0.75), kRounding);
  EXPECT_NEAR(learning_rate(kCosine, 100 + 300), 0.02 * 0.55, kRounding);
  EXPECT_NEAR(learning_rate(kCosine, 100 + 400), 0.02 * (0.1 + 0.9 * 0.25), kRounding);
  for (int64_t t = 101; t <= 700; ++t) {
    EXPECT_LT(learning_rate(kCosine, t), learning_rate(kCosine, t - 1)) << "step " << t;
  }
}

TEST(LearningRate, EndsAtAFractionOfThePeakAndStaysThere) {
  EXPECT_NEAR(learning_rate(kCosine, 700), 0.002, kRounding);
  EXPECT_EQ(learning_rate(kCosine, 701), learning_rate(kCosine, 700));
  EXPECT_EQ(learning_rate(kCosine, 1000000), learning_rate(kCosine, 700));
  ScheduleConfig to_zero = kCosine;
  to_zero.final_fraction = 0.0;
  EXPECT_NEAR(learning_rate(to_zero, 700), 0.0, kRounding);
  EXPECT_GE(learning_rate(to_zero, 700), 0.0);
}

TEST(LearningRate, NeedsNoWarmUp) {
  ScheduleConfig config = kCosine;
  config.warmup_steps = 0;
  config.total_steps = 4;  // quarters: cos(pi / 4) = 1 / sqrt(2)
  EXPECT_NEAR(learning_rate(config, 1), 0.02 * (0.1 + 0.45 * (1.0 + 0.70710678118654752)), kRounding);
  EXPECT_NEAR(learning_rate(config, 2), 0.02 * 0.55, kRounding);
  EXPECT_NEAR(learning_rate(config, 4), 0.002, kRounding);
}

TEST(LearningRate, OfARunThatIsAllWarmUp) {
  ScheduleConfig config = kCosine;
  config.total_steps = config.warmup_steps;
  EXPECT_EQ(learning_rate(config, 100), 0.02);
  EXPECT_NEAR(learning_rate(config, 101), 0.002, kRounding);
}

TEST(LearningRate, IsConstantAfterTheWarmUpWhenAskedTo) {
  ScheduleConfig config = kCosine;
  config.kind = ScheduleKind::constant;
  EXPECT_EQ(learning_rate(config, 0), 0.0);
  EXPECT_NEAR(learning_rate(config, 25), 0.005, kRounding);
  for (const int64_t t : {100, 101, 400, 700, 100000}) EXPECT_EQ(learning_rate(config, t), 0.02);
  config.warmup_steps = 0;
  EXPECT_EQ(learning_rate(config, 1), 0.02);
}

}  // namespace
}  // namespace red::optim
