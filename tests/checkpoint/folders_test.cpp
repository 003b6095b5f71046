// The life of folders: saves that were killed between two stages, saves of a step that was saved before, and
// what `latest` may say.
#include "checkpoint/folders.hpp"

#include <gtest/gtest.h>

#include "checkpoint/test_run.hpp"
#include "checkpoint/tiled_model.hpp"

namespace red::checkpoint::test {
namespace {

namespace fs = std::filesystem;

class FoldersTest : public CheckpointTest {
 protected:
  void save_version(int64_t step, int version) {
    OwnedShards owned = shards_of(tilings()[0], rank(), size(), 0);
    owned.fill(version);
    save(folder(), metadata_of(step), owned.shards(), world());
  }
  int64_t count_wrong(const fs::path& checkpoint, int version) {
    const Reader reader(checkpoint);
    OwnedShards owned = shards_of(tilings()[3], 0, 1, 0);
    for (const Shard& shard : owned.shards()) reader.read(shard);
    return owned.count_wrong(version);
  }
  /// Something that one rank does for all.
  template <class F>
  void on_rank_0(const F& work) {
    barrier();
    if (rank() == 0) work();
    barrier();
  }
  const fs::path step1_ = folder() / "step-00000001", step2_ = folder() / "step-00000002";
};

TEST_F(FoldersTest, NoCheckpointIsNoError) {
  EXPECT_EQ(find_latest(folder()), std::nullopt);
  EXPECT_EQ(find_latest(folder() / "nowhere"), std::nullopt);
}

TEST_F(FoldersTest, KilledWhileWriting) {
  save_version(1, 1);
  on_rank_0([&] {
    fs::create_directories(step2_.string() + ".partial/deeper");
    std::ofstream(step2_.string() + ".partial/shard-00000.h5") << "half a shard";
    std::ofstream(step2_.string() + ".partial/deeper/file") << "of somebody else";
  });
  EXPECT_EQ(find_latest(folder()), step1_);
  save_version(2, 2);
  EXPECT_EQ(names_in(folder()), (std::set<std::string>{"latest", "step-00000001", "step-00000002"}));
  EXPECT_EQ(count_wrong(step2_, 2), 0);
}

TEST_F(FoldersTest, KilledBeforeTheRename) {
  save_version(1, 1);
  save_version(2, 2);
  on_rank_0([&] {
    fs::rename(step2_, step2_.string() + ".partial");
    std::ofstream(folder() / "latest") << "step-00000001\n";
  });
  EXPECT_EQ(find_latest(folder()), step1_);
  EXPECT_TRUE(
      has(error_of<DataError>([&] { Reader reader(step2_.string() + ".partial"); }), "never finished"));
  EXPECT_TRUE(
      has(error_of<DataError>([&] { Reader reader(step2_.string() + ".partial/"); }), "never finished"));
  save_version(2, 3);
  EXPECT_EQ(find_latest(folder()), step2_);
  EXPECT_EQ(count_wrong(step2_, 3), 0);
}

TEST_F(FoldersTest, KilledBeforeLatestMoved) {
  save_version(1, 1);
  save_version(2, 2);
  on_rank_0([&] {
    std::ofstream(folder() / "latest") << "step-00000001\n";
    std::ofstream(folder() / "latest.partial") << "step-0000";
  });
  EXPECT_EQ(find_latest(folder()), step1_);
  // The run goes on from step 1 and comes by step 2 again.
  save_version(2, 3);
  EXPECT_EQ(find_latest(folder()), step2_);
  EXPECT_EQ(count_wrong(step2_, 3), 0);
  EXPECT_EQ(count_wrong(step2_.string() + ".superseded-1", 2), 0);
  EXPECT_EQ(names_in(folder()), (std::set<std::string>{"latest", "step-00000001", "step-00000002",
                                                       "step-00000002.superseded-1"}));
}

TEST_F(FoldersTest, EverySaveOfAStepIsKept) {
  for (int version = 1; version <= 3; ++version) save_version(1, version);
  EXPECT_EQ(count_wrong(step1_, 3), 0);
  EXPECT_EQ(count_wrong(step1_.string() + ".superseded-1", 1), 0);
  EXPECT_EQ(count_wrong(step1_.string() + ".superseded-2", 2), 0);
  // The count goes on where an older one was removed by hand.
  on_rank_0([&] { fs::remove_all(step1_.string() + ".superseded-1"); });
  save_version(1, 4);
  EXPECT_EQ(count_wrong(step1_.string() + ".superseded-3", 3), 0);
}

TEST_F(FoldersTest, KilledBetweenTheRenamesOfAStepSavedAgain) {
  save_version(1, 1);
  save_version(1, 2);
  on_rank_0([&] { fs::rename(step1_, step1_.string() + ".superseded-2"); });
  const auto latest = find_latest(folder());
  EXPECT_EQ(latest, fs::path(step1_.string() + ".superseded-2"));
  if (latest) {
    EXPECT_EQ(count_wrong(*latest, 2), 0);
  }
}

TEST_F(FoldersTest, LatestThatCannotBe) {
  const auto latest_says = [&](const char* text) {
    on_rank_0([&] { std::ofstream(folder() / "latest") << text; });
    return error_of<DataError>([&] { find_latest(folder()); });
  };
  EXPECT_TRUE(has(latest_says(""), "is empty"));
  EXPECT_TRUE(has(latest_says("../elsewhere\n"), "no folder beside it"));
  EXPECT_TRUE(has(latest_says("..\n"), "no folder beside it"));
  EXPECT_TRUE(has(latest_says("step-00000009\n"), "step-00000009', which is not there"));
}

TEST_F(FoldersTest, NamesOfSteps) {
  EXPECT_EQ(folder_name(0), "step-00000000");
  EXPECT_EQ(folder_name(400000), "step-00400000");
  EXPECT_EQ(folder_name(1234567890), "step-1234567890");
  EXPECT_THROW(folder_name(-1), LogicError);
}

}  // namespace
}  // namespace red::checkpoint::test
