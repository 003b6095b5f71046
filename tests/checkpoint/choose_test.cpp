// Which checkpoint a run goes on from when some are incomplete or damaged: the newest that is whole; what is
// not stays, under a name that says why.
#include "checkpoint/choose.hpp"

#include <gtest/gtest.h>
#include <sys/mount.h>

#include "checkpoint/manifest.hpp"
#include "checkpoint/test_run.hpp"
#include "checkpoint/tiled_model.hpp"

namespace red::checkpoint::test {
namespace {

namespace fs = std::filesystem;

class ChooseTest : public CheckpointTest {
 protected:
  void save_steps(int count) {
    for (int step = 1; step <= count; ++step) save_step(step);
  }
  void save_step(int64_t step) {
    OwnedShards owned = shards_of(tilings()[0], rank(), size(), 0);
    owned.fill(static_cast<int>(step));
    save(folder(), metadata_of(step), owned.shards(), world());
  }
  template <class F>
  void on_rank_0(const F& work) {
    barrier();
    if (rank() == 0) work();
    barrier();
  }
  std::string chosen() {
    const auto path = choose_newest(folder(), world());
    barrier();
    return path ? path->filename().string() : "nothing";
  }
  std::string last_shard() const { return shard_file_name(size() - 1); }
  static void flip_last_byte(const fs::path& path) {
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(-1, std::ios::end);
    const auto byte = static_cast<char>(file.get() ^ 1);
    file.seekp(-1, std::ios::end);
    file.put(byte);
  }
  const fs::path step1_ = folder() / "step-00000001", step2_ = folder() / "step-00000002",
                 step3_ = folder() / "step-00000003";
};

TEST_F(ChooseTest, NothingAndTheNewest) {
  EXPECT_EQ(chosen(), "nothing");
  save_steps(3);
  EXPECT_EQ(chosen(), "step-00000003");
  // Steps are numbers, not texts.
  save_step(100000000);
  EXPECT_EQ(chosen(), "step-100000000");
}

TEST_F(ChooseTest, WhatIsDamagedIsSetAside) {
  save_steps(3);
  on_rank_0([&] {
    flip_last_byte(step3_ / last_shard());
    fs::remove(step2_ / last_shard());
  });
  EXPECT_EQ(chosen(), "step-00000001");
  EXPECT_EQ(names_in(folder()), (std::set<std::string>{"latest", "step-00000001", "step-00000002.damaged-1",
                                                       "step-00000003.damaged-1"}));
  EXPECT_EQ(find_latest(folder()), step1_);
  EXPECT_EQ(chosen(), "step-00000001");
  // And again.
  barrier();
  save_step(3);
  on_rank_0([&] { fs::remove(step3_ / kIndexName); });
  EXPECT_EQ(chosen(), "step-00000001");
  EXPECT_TRUE(fs::exists(folder() / "step-00000003.damaged-2"));
}

TEST_F(ChooseTest, NothingIsBegunAnewWhereAllIsDamaged) {
  save_steps(2);
  on_rank_0([&] {
    flip_last_byte(step1_ / kIndexName);
    fs::resize_file(step2_ / shard_file_name(0), 100);
  });
  for (int round = 0; round < 2; ++round) {
    EXPECT_TRUE(has(error_of<DataError>([&] { choose_newest(folder(), world()); }),
                    "holds damaged checkpoints (step-N.damaged-K) and none that is whole"));
    barrier();
  }
  EXPECT_EQ(names_in(folder()),
            (std::set<std::string>{"latest", "step-00000001.damaged-1", "step-00000002.damaged-1"}));
}

TEST_F(ChooseTest, WhatIsUnfinishedIsSetAside) {
  save_steps(1);
  for (int round = 1; round <= 2; ++round) {
    on_rank_0([&] {
      fs::create_directory(step2_.string() + ".partial");
      std::ofstream(folder() / "step-00000002.partial/shard-00000.h5") << "half a shard";
      fs::create_directory(folder() / "step-00000000.removing");
      std::ofstream(folder() / "step-00000000.removing/index.h5") << "of a deletion";
    });
    EXPECT_EQ(chosen(), "step-00000001");
    EXPECT_TRUE(fs::exists(fmt::format("{}.incomplete-{}/shard-00000.h5", step2_.string(), round)));
  }
  EXPECT_EQ(names_in(folder()),
            (std::set<std::string>{"latest", "step-00000001", "step-00000002.incomplete-1",
                                   "step-00000002.incomplete-2"}));
}

TEST_F(ChooseTest, WhatADeletionCannotRemoveIsInNobodysWay) {
  save_steps(1);
  const fs::path removing = step2_.string() + ".removing", notes = folder() / "notes.removing";
  on_rank_0([&] {
    fs::create_directory(notes);  // none of ours
    fs::create_directory(removing);
    if (::mount("tmpfs", removing.c_str(), "tmpfs", 0, "size=16k") != 0) fs::remove(removing);
  });
  const bool mounted = fs::exists(removing);
  EXPECT_EQ(chosen(), "step-00000001");
  EXPECT_TRUE(fs::exists(notes));
  EXPECT_EQ(fs::exists(removing), mounted);
  on_rank_0([&] {
    if (mounted) {
      EXPECT_EQ(::umount(removing.c_str()), 0);
    }
  });
  EXPECT_EQ(chosen(), "step-00000001");
  EXPECT_FALSE(fs::exists(removing));
}

TEST_F(ChooseTest, ASupersededOneCounts) {
  save_steps(2);
  save_step(2);
  EXPECT_EQ(chosen(), "step-00000002");
  on_rank_0([&] { flip_last_byte(step2_ / last_shard()); });
  EXPECT_EQ(chosen(), "step-00000002.superseded-1");
}

TEST_F(ChooseTest, GoingBackCallsOffWhatIsNewer) {
  save_steps(3);
  on_rank_0([&] { flip_last_byte(step2_ / last_shard()); });
  EXPECT_EQ(choose_newest(folder(), world(), 0), std::nullopt);
  const auto back = choose_newest(folder(), world(), 2);
  EXPECT_EQ(back, step1_);
  call_off_newer_together(folder(), 2, world());
  barrier();
  EXPECT_EQ(names_in(folder()), (std::set<std::string>{"latest", "step-00000001", "step-00000002.damaged-1",
                                                       "step-00000003.called-off-1"}));
  EXPECT_EQ(chosen(), "step-00000001");
  barrier();
  save_step(3);
  save_step(3);
  call_off_newer_together(folder(), 1, world());
  barrier();
  EXPECT_TRUE(fs::exists(folder() / "step-00000003.called-off-3"));
  EXPECT_EQ(chosen(), "step-00000001");
}

TEST_F(ChooseTest, GoingOnFromAnOlderOneCallsOffWhatIsNewer) {
  save_steps(3);
  save_step(3);
  go_back_to_together(folder(), step1_, 1, world());
  barrier();
  EXPECT_EQ(names_in(folder()),
            (std::set<std::string>{"latest", "step-00000001", "step-00000002.called-off-1",
                                   "step-00000003.called-off-1", "step-00000003.called-off-2"}));
  EXPECT_EQ(find_latest(folder()), step1_);
  barrier();
  save_step(2);
  EXPECT_EQ(chosen(), "step-00000002");
  // From the newest nothing changes.
  const std::set<std::string> before = names_in(folder());
  barrier();
  go_back_to_together(folder(), step2_ / "", 2, world());
  barrier();
  EXPECT_EQ(names_in(folder()), before);
  // From the older save of a step: the other one of that step is newer.
  barrier();
  save_step(2);
  const fs::path superseded = folder() / "step-00000002.superseded-1";
  go_back_to_together(folder(), superseded, 2, world());
  barrier();
  EXPECT_EQ(find_latest(folder()), superseded);
  EXPECT_TRUE(fs::exists(folder() / "step-00000002.called-off-2"));
  EXPECT_EQ(chosen(), "step-00000002.superseded-1");
}

TEST_F(ChooseTest, GoingOnFromOneOfAnotherFolderCallsOffWhatHasMoreSteps) {
  save_steps(3);
  go_back_to_together(folder(), folder() / "elsewhere" / "step-00000002", 2, world());
  barrier();
  EXPECT_EQ(names_in(folder()), (std::set<std::string>{"latest", "step-00000001", "step-00000002",
                                                       "step-00000003.called-off-1"}));
  EXPECT_EQ(find_latest(folder()), step2_);
  barrier();
  go_back_to_together(folder(), folder() / "elsewhere" / "step-00000000", 0, world());
  barrier();
  EXPECT_EQ(find_latest(folder()), std::nullopt);
  EXPECT_EQ(chosen(), "nothing");
}

TEST_F(ChooseTest, ForeignNamesAreLeftAlone) {
  save_steps(1);
  on_rank_0([&] {
    for (const char* name : {"step-2", "step-00000003.copy", "step-0000000x", "notes",
                             "step-00000004.superseded-", "step--0000001"})
      fs::create_directory(folder() / name);
  });
  EXPECT_EQ(chosen(), "step-00000001");
  EXPECT_EQ(names_in(folder()).size(), 8U);
}

TEST_F(ChooseTest, AllFindTheSameDamage) {
  save_steps(1);
  on_rank_0([&] {
    for (int writer = 0; writer < size(); ++writer) flip_last_byte(step1_ / shard_file_name(writer));
  });
  const std::string damage = find_damage_together(step1_, world());
  for (int writer = 0; writer < size(); ++writer) EXPECT_TRUE(has(damage, shard_file_name(writer)));
  EXPECT_EQ(std::count(damage.begin(), damage.end(), '\n'), size());
}

}  // namespace
}  // namespace red::checkpoint::test
