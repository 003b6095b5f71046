#include "train/loss_guard.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "base/error.hpp"
#include "base/philox.hpp"

namespace red::train {
namespace {

using Verdict = LossGuard::Verdict;

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

LossGuardOptions options() {
  return {.max_not_finite = 2, .threshold = 5.0, .window = 8, .spike_steps = 3};
}

/// 1.0 and 1.1 in turn until there are enough.
LossGuard filled() {
  LossGuard guard(options());
  for (int i = 0; i < 8; ++i) EXPECT_EQ(guard.add(i % 2 == 0 ? 1.0 : 1.1, true), Verdict::fine);
  return guard;
}

TEST(LossGuardTest, WithoutAThresholdOnlyStepsThatAreNotFiniteCount) {
  LossGuard guard({.max_not_finite = 2});
  EXPECT_EQ(guard.add(1.0, true), Verdict::fine);
  EXPECT_EQ(guard.add(1e30, true), Verdict::fine);
  for (int round = 0; round < 2; ++round) {
    EXPECT_EQ(guard.add(kNone, false), Verdict::not_finite);
    EXPECT_EQ(guard.add(kNone, false), Verdict::not_finite);
    EXPECT_EQ(guard.add(kNone, false), Verdict::too_many_not_finite);
    EXPECT_EQ(guard.in_a_row(), 3);
    EXPECT_EQ(guard.add(1.0, true), Verdict::fine);
  }
  EXPECT_EQ(guard.state(), "0");
}

TEST(LossGuardTest, HighLossesInARowAreASpike) {
  LossGuard guard = filled();
  EXPECT_EQ(guard.add(1.84, true), Verdict::fine);  // 1.1 + 5 x 1.4826 x 0.1 = 1.8413
  guard = filled();
  EXPECT_EQ(guard.add(1.85, true), Verdict::high);
  EXPECT_DOUBLE_EQ(guard.median(), 1.1);
  EXPECT_NEAR(guard.spread(), 0.14826, 1e-12);
  EXPECT_NEAR(guard.limit(), 1.8413, 1e-12);
  EXPECT_EQ(guard.add(7.0, true), Verdict::high);
  EXPECT_EQ(guard.add(3.0, true), Verdict::spike);
  EXPECT_EQ(guard.in_a_row(), 3);
  EXPECT_EQ(guard.high(), 7.0);
  EXPECT_EQ(guard.add(3.0, true), Verdict::spike);  // where nothing was done about it
  EXPECT_NEAR(guard.limit(), 1.8413, 1e-12);        // of none of them
  EXPECT_EQ(guard.add(1.0, true), Verdict::fine);
  EXPECT_EQ(guard.add(2.0, true), Verdict::high);
  EXPECT_EQ(guard.high(), 2.0);
}

TEST(LossGuardTest, ARowEndsWithOneLossThatIsNotHigh) {
  LossGuard guard = filled();
  EXPECT_EQ(guard.add(2.0, true), Verdict::high);
  EXPECT_EQ(guard.add(2.0, true), Verdict::high);
  EXPECT_EQ(guard.add(kNone, false), Verdict::not_finite);
  EXPECT_EQ(guard.in_a_row(), 1);
  EXPECT_EQ(guard.add(2.0, true), Verdict::high);
  EXPECT_EQ(guard.in_a_row(), 1);
  EXPECT_EQ(guard.add(1.0, true), Verdict::fine);
  EXPECT_EQ(guard.in_a_row(), 0);
}

TEST(LossGuardTest, NothingIsHighBeforeThereAreEnoughLossesOrBehindForget) {
  LossGuard guard(options());
  for (int i = 0; i < 7; ++i) EXPECT_EQ(guard.add(1.0, true), Verdict::fine);
  EXPECT_EQ(guard.add(100.0, true), Verdict::fine);
  guard = filled();
  EXPECT_EQ(guard.add(9.0, true), Verdict::high);
  guard.forget();
  for (int i = 0; i < 8; ++i) EXPECT_EQ(guard.add(9.0, true), Verdict::fine);
}

// The spread of equal losses would be none.
TEST(LossGuardTest, EqualLossesHaveASpreadToo) {
  LossGuard guard(options());
  for (int i = 0; i < 8; ++i) guard.add(2.0, true);
  EXPECT_EQ(guard.add(2.009, true), Verdict::fine);
  EXPECT_EQ(guard.add(2.011, true), Verdict::high);
}

TEST(LossGuardTest, GoesOnFromItsStateAsIfNothingHadBeen) {
  for (uint64_t cut = 0; cut < 60; cut += 7) {
    LossGuard whole(options()), resumed(options());
    for (uint64_t step = 0; step < 60; ++step) {
      const uint32_t die = philox(3, step)[0];
      const double loss = 1.0 + 1e-10 * die + (die % 5 == 0 ? 3.0 : 0.0) + (step > 40 ? 2.0 : 0.0);
      if (step == cut) resumed.restore(whole.state());
      const Verdict verdict = whole.add(loss, true);
      if (step < cut) continue;
      EXPECT_EQ(resumed.add(loss, true), verdict) << cut << " " << step;
      EXPECT_EQ(resumed.limit(), whole.limit());
      EXPECT_EQ(resumed.in_a_row(), whole.in_a_row());
      EXPECT_EQ(resumed.state(), whole.state());
    }
  }
}

TEST(LossGuardTest, AnotherWindowTakesTheNewestLosses) {
  LossGuardOptions longer = options();
  longer.window = 10;
  LossGuard wide(longer), narrow(options());
  for (int i = 0; i < 10; ++i) wide.add(i, true);
  narrow.restore(wide.state());
  EXPECT_EQ(narrow.state(), "0 2 3 4 5 6 7 8 9");
  wide.restore(narrow.state());
  EXPECT_EQ(wide.add(1000.0, true), Verdict::fine);  // eight are not enough
  narrow.restore("");
  EXPECT_EQ(narrow.state(), "0");
}

TEST(LossGuardTest, WhatIsNoStateIsRefused) {
  LossGuard guard(options());
  for (const char* text : {"x", "0 1.0 y", "0,1", "0 1.0  2.0"})
    EXPECT_THROW(guard.restore(text), DataError) << text;
}

}  // namespace
}  // namespace red::train
