#include "train/step_mark.hpp"

#include <gtest/gtest.h>

#include <fstream>

#include "support/temporary_folder.hpp"

namespace red::train {
namespace {

TEST(StepMarkTest, TellsTheLastStep) {
  const test::TemporaryFolder folder;
  EXPECT_EQ(read_step_mark(folder.path()), std::nullopt);
  {
    StepMark mark(folder.path());
    EXPECT_EQ(read_step_mark(folder.path()), std::nullopt);  // no step has begun
    for (const int64_t step : {int64_t{1}, int64_t{1} << 40, int64_t{99}}) {
      mark.write(step);
      EXPECT_EQ(read_step_mark(folder.path()), step);
    }
  }
  EXPECT_EQ(read_step_mark(folder.path()), 99);
  const StepMark next(folder.path());
  EXPECT_EQ(read_step_mark(folder.path()), std::nullopt);
}

TEST(StepMarkTest, AFolderThatCannotBeWrittenIsNoFailure) {
  StepMark mark("/no/such/folder");
  mark.write(3);
  EXPECT_EQ(read_step_mark("/no/such/folder"), std::nullopt);
}

TEST(StepMarkTest, OtherTextsAreNoStep) {
  const test::TemporaryFolder folder;
  for (const char* text : {"", "step", "-4\n", "0\n"}) {
    std::ofstream(step_mark_path(folder.path())) << text;
    EXPECT_EQ(read_step_mark(folder.path()), std::nullopt) << text;
  }
}

}  // namespace
}  // namespace red::train
