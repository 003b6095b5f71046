// Which checkpoints stay: the rule by hand, and folders after saves that follow it.
#include "checkpoint/retention.hpp"

#include <gtest/gtest.h>

#include <cmath>

#include "checkpoint/test_run.hpp"
#include "checkpoint/tiled_model.hpp"

namespace red::checkpoint::test {
namespace {

using Steps = std::vector<int64_t>;

std::vector<RetainedStep> steps(const Steps& numbers) {
  std::vector<RetainedStep> result;
  for (const int64_t step : numbers) result.push_back({step, std::nullopt});
  return result;
}

TEST(RetentionRule, ByHand) {
  const std::vector<RetainedStep> five = steps({10, 20, 30, 40, 50});
  EXPECT_EQ(steps_to_delete({}, five, 50), Steps());
  EXPECT_EQ(steps_to_delete({0, 10, 3}, five, 50), Steps());
  EXPECT_EQ(steps_to_delete({1, 0, 0}, five, 50), Steps({10, 20, 30, 40}));
  EXPECT_EQ(steps_to_delete({2, 0, 0}, five, 50), Steps({10, 20, 30}));
  EXPECT_EQ(steps_to_delete({9, 0, 0}, five, 50), Steps());
  EXPECT_EQ(steps_to_delete({1, 20, 0}, five, 50), Steps({10, 30}));
  // A run that was resumed from before the newest: what it just saved stays all the same.
  EXPECT_EQ(steps_to_delete({2, 0, 0}, five, 20), Steps({10, 30}));
  EXPECT_EQ(steps_to_delete({1, 0, 0}, {}, 50), Steps());
}

TEST(RetentionRule, TheBestStay) {
  std::vector<RetainedStep> some = {{10, 3.0}, {20, 2.0}, {30, std::nullopt}, {40, 2.5}, {50, 2.0}, {60, {}}};
  EXPECT_EQ(steps_to_delete({1, 0, 1}, some, 60), Steps({10, 30, 40, 50}));
  EXPECT_EQ(steps_to_delete({1, 0, 2}, some, 60), Steps({10, 30, 40}));
  EXPECT_EQ(steps_to_delete({1, 0, 9}, some, 60), Steps({30}));
  some[1].validation_loss = std::nan("");
  EXPECT_EQ(steps_to_delete({1, 0, 1}, some, 60), Steps({10, 20, 30, 40}));
}

class RetentionTest : public CheckpointTest {
 protected:
  void save_step(int64_t step, std::optional<double> loss, const Retention& retention) {
    OwnedShards owned = shards_of(tilings()[0], rank(), size(), 0);
    owned.fill(static_cast<int>(step));
    Metadata metadata = metadata_of(step);
    metadata.validation_loss = loss;
    SaveOptions options;
    options.retention = retention;
    save(folder(), metadata, owned.shards(), world(), options);
  }
};

TEST_F(RetentionTest, DeletesAfterEverySave) {
  const Retention retention{2, 4, 1};
  const double losses[] = {5, 1, 4, 3, 3, 3, 3, 3, 3};
  for (int64_t step = 1; step <= 9; ++step) save_step(step, losses[step - 1], retention);
  EXPECT_EQ(names_in(folder()), (std::set<std::string>{"latest", "step-00000002", "step-00000004",
                                                       "step-00000008", "step-00000009"}));
  EXPECT_EQ(find_latest(folder()), folder() / "step-00000009");
}

TEST_F(RetentionTest, LeavesWhatIsNotItsOwn) {
  save_step(1, {}, {});
  save_step(1, {}, {});
  if (rank() == 0) {
    for (const char* name : {"step-00000000.damaged-1", "step-00000000.incomplete-1", "notes"})
      std::filesystem::create_directory(folder() / name);
  }
  barrier();
  save_step(2, {}, {1, 0, 0});
  EXPECT_EQ(names_in(folder()),
            (std::set<std::string>{"latest", "notes", "step-00000000.damaged-1", "step-00000000.incomplete-1",
                                   "step-00000001.superseded-1", "step-00000002"}));
}

}  // namespace
}  // namespace red::checkpoint::test
