// A run that begins with another run's parameters: from any layout in any other, with the optimizer's state
// or without, on its own samples from the first on.
#include <gtest/gtest.h>

#include "train/run_directory.hpp"
#include "train/small_run.hpp"

namespace red::test {
namespace {

namespace fs = std::filesystem;
using Tensors = std::map<std::string, std::vector<float>>;

class InitializeFrom : public testing::Test {
 protected:
  /// One step at a rate that moves nothing, behind three steps of another run.
  config::RunConfig tuning(const fs::path& from, bool keep_state) const {
    config::RunConfig config = small_config(model::Kind::red);
    config.train.steps = 1;
    config.schedule.kind = optim::ScheduleKind::constant;
    config.schedule.peak = 1e-30;
    config.schedule.warmup_steps = 0;
    config.checkpoint.initialize_from = from;
    config.checkpoint.keep_optimizer_state = keep_state;
    return config;
  }
  fs::path pretrained(const parallel::Layout& layout) {
    fs::path dir = folder_.path() / "pretrained";
    config::RunConfig config = small_config(model::Kind::red);
    config.train.steps = 3;
    run(mpi_.world(), layout, config, dir);
    folder_.barrier();
    return dir;
  }
  checkpoint::Metadata metadata_of(const fs::path& run_dir) const {
    return checkpoint::Reader(checkpoint::find_latest(run_dir / "checkpoints").value()).metadata();
  }
  /// Rank 0 takes the folder away; the others may still read.
  void TearDown() override { folder_.barrier(); }
  static bool is_parameter(const std::string& path) { return path.starts_with("parameters/"); }

  parallel::MpiEnvironment mpi_;
  SharedFolder folder_{mpi_.world()};
};

TEST_F(InitializeFrom, TakesParametersAndStateFromAnyLayout) {
  const auto all = layouts(mpi_.size(), model::Kind::red);
  const fs::path from = pretrained(all.front());
  const Tensors before = checkpoint_tensors(from);
  for (std::size_t i = 0; i < all.size(); ++i) {
    SCOPED_TRACE(all[i].to_string());
    const fs::path kept = folder_.path() / fmt::format("kept-{}", i),
                   anew = folder_.path() / fmt::format("anew-{}", i);
    run(mpi_.world(), all[i], tuning(from, true), kept);
    run(mpi_.world(), all[i], tuning(from, false), anew);
    folder_.barrier();
    const Tensors with = checkpoint_tensors(kept), without = checkpoint_tensors(anew);
    for (const auto& [path, values] : before) {
      if (is_parameter(path)) {
        EXPECT_EQ(with.at(path), values) << path;
        EXPECT_EQ(without.at(path), values) << path;
      } else {
        EXPECT_NE(with.at(path), without.at(path)) << path;
      }
    }
    EXPECT_EQ(metadata_of(kept).extra.at("updates"), "4");
    EXPECT_EQ(metadata_of(anew).extra.at("updates"), "1");
    for (const fs::path& dir : {kept, anew}) {
      EXPECT_EQ(metadata_of(dir).step, 1);
      EXPECT_EQ(metadata_of(dir).sample_cursor, 8U);
    }
  }
}

TEST_F(InitializeFrom, ARunWithCheckpointsGoesOnFromThose) {
  const parallel::Layout layout{mpi_.size(), 1, 0, 1};
  const fs::path from = pretrained(layout), dir = folder_.path() / "tuned";
  config::RunConfig config = tuning(from, true);
  run(mpi_.world(), layout, config, dir);
  folder_.barrier();
  config.train.steps = 2;
  run(mpi_.world(), layout, config, dir);
  folder_.barrier();
  EXPECT_EQ(metadata_of(dir).step, 2);
  EXPECT_EQ(metadata_of(dir).extra.at("updates"), "5");
}

TEST_F(InitializeFrom, RefusesAnotherModelAndNoCheckpoint) {
  const parallel::Layout layout{mpi_.size(), 1, 0, 1};
  const fs::path from = pretrained(layout);
  const fs::path newest = train::checkpoint_to_initialize_from(from);
  EXPECT_EQ(train::checkpoint_to_initialize_from(newest), newest);
  config::RunConfig config = tuning(from, true);
  config.data.window = 64;  // other data is what this is for
  EXPECT_NO_THROW(train::check_initialization(metadata_of(from), config, "", newest));
  config.optimizer.factored = true;
  EXPECT_THROW(train::check_initialization(metadata_of(from), config, "", newest), ConfigError);
  config.checkpoint.keep_optimizer_state = false;
  EXPECT_NO_THROW(train::check_initialization(metadata_of(from), config, "", newest));
  config.model.d_ff = 48;
  EXPECT_THROW(train::check_initialization(metadata_of(from), config, "", newest), ConfigError);
  EXPECT_THROW(train::checkpoint_to_initialize_from(folder_.path() / "gone"), ConfigError);
}

}  // namespace
}  // namespace red::test
