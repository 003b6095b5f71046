// A median favours neither fast nor slow runs, whatever their number.
#include "launch/median.hpp"

#include <gtest/gtest.h>

namespace red::launch {
namespace {

TEST(Median, IsTheMiddleOneOrTheMeanOfTheTwoInTheMiddle) {
  EXPECT_EQ(median({3.0}), 3.0);
  EXPECT_EQ(median({9.0, 1.0, 4.0}), 4.0);
  EXPECT_EQ(median({8.0, 2.0}), 5.0);
  EXPECT_EQ(median({100.0, 1.0, 4.0, 2.0}), 3.0);
  EXPECT_EQ(median({5.0, 1.0, 2.0, 3.0, 4.0}), 3.0);
}

}  // namespace
}  // namespace red::launch
