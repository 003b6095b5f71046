// A program of its own, because the choice is made once.
#include "device/gemm_measuring.hpp"

#include <gtest/gtest.h>

#include "device/gemm_library.hpp"

namespace red {
namespace {

TEST(GemmMeasuring, TheFirstLibraryThatWorksIsTakenHoweverFastAnotherIs) {
  EXPECT_TRUE(choices_are_measured());
  choose_without_measuring();
  EXPECT_FALSE(choices_are_measured());
  const GemmChoice first = gemm_usable(GemmChoice::openblas) ? GemmChoice::openblas
                           : gemm_usable(GemmChoice::onednn) ? GemmChoice::onednn
                                                             : GemmChoice::plain;
  EXPECT_EQ(gemm_library().choice, first);
}

}  // namespace
}  // namespace red
