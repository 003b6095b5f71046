// Failures at the last moment of a save, when its folder has its final name already: what is told is what is
// on the disk. fsync and rename of this program are those below, which fail where a test says so.
#include <dlfcn.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cerrno>

#include "checkpoint/folders.hpp"
#include "checkpoint/test_run.hpp"
#include "checkpoint/tiled_model.hpp"

namespace {

/// Of calls on one path, the first `after` go well, and `count` fail.
struct PlannedFailure {
  std::string path;
  int after = 0, count = 0;

  bool strikes(const std::string& asked) {
    if (asked != path || after-- > 0) return false;
    return count-- > 0;
  }
};
PlannedFailure fsync_failure, rename_failure;  // of this rank; rename: by the new name

template <class Function>
Function real(const char* name) {
  return reinterpret_cast<Function>(dlsym(RTLD_NEXT, name));
}

}  // namespace

extern "C" {

int fsync(int descriptor) {
  static const auto call = real<int (*)(int)>("fsync");
  std::error_code none;
  const auto path = std::filesystem::read_symlink("/proc/self/fd/" + std::to_string(descriptor), none);
  if (!fsync_failure.strikes(path.string())) return call(descriptor);
  errno = EIO;
  return -1;
}

int rename(const char* from, const char* to) noexcept {
  static const auto call = real<int (*)(const char*, const char*)>("rename");
  if (!rename_failure.strikes(to)) return call(from, to);
  errno = EIO;
  return -1;
}

}  // extern "C"

namespace red::checkpoint::test {
namespace {

namespace fs = std::filesystem;

class PublishTest : public CheckpointTest {
 protected:
  ~PublishTest() override { fsync_failure = rename_failure = {}; }

  void save_version(int64_t step, int version, const Retention& retention = {}) {
    OwnedShards owned = shards_of(tilings()[0], rank(), size(), 0);
    owned.fill(version);
    SaveOptions options;
    options.retention = retention;
    save(folder(), metadata_of(step), owned.shards(), world(), options);
    barrier();
  }
  int64_t count_wrong(const fs::path& checkpoint, int version) {
    const Reader reader(checkpoint);
    OwnedShards owned = shards_of(tilings()[3], 0, 1, 0);
    for (const Shard& shard : owned.shards()) reader.read(shard);
    return owned.count_wrong(version);
  }
  /// The folder of checkpoints is synced first when step-N.partial is made, then when that was renamed.
  void fail_sync_after_renaming() {
    barrier();
    fsync_failure = {folder().string(), 1, 1};
  }
  void expect_names(const std::set<std::string>& names) {
    barrier();
    EXPECT_EQ(names_in(folder()), names);
    barrier();
  }
  const fs::path step1_ = folder() / "step-00000001", step2_ = folder() / "step-00000002",
                 step3_ = folder() / "step-00000003";
};

TEST_F(PublishTest, ARenamingThatIsNotOnTheDiskIsUndone) {
  save_version(1, 1);
  fail_sync_after_renaming();
  const std::string text = error_of<IoError>([&] { save_version(2, 2); });
  EXPECT_TRUE(has(text, "sync folder"));
  EXPECT_TRUE(has(text, "(errno 5)"));
  expect_names({"latest", "step-00000001"});
  EXPECT_EQ(find_latest(folder()), step1_);
  save_version(2, 3);
  expect_names({"latest", "step-00000001", "step-00000002"});
  EXPECT_EQ(count_wrong(step2_, 3), 0);
}

TEST_F(PublishTest, SoIsThatOfTheSaveBeforeOfTheSameStep) {
  save_version(1, 1);
  fail_sync_after_renaming();
  EXPECT_TRUE(has(error_of<IoError>([&] { save_version(1, 2); }), "(errno 5)"));
  expect_names({"latest", "step-00000001"});
  EXPECT_EQ(count_wrong(step1_, 1), 0);
}

TEST_F(PublishTest, WhatCannotBeUndoneIsTold) {
  save_version(1, 1);
  fail_sync_after_renaming();
  rename_failure = {step2_.string() + ".partial", 0, 1};
  const std::string text = error_of<IoError>([&] { save_version(2, 2); });
  EXPECT_TRUE(has(text, "sync folder"));
  EXPECT_TRUE(has(text, "and what was renamed stays so: cannot rename '" + step2_.string()));
  expect_names({"latest", "step-00000001", "step-00000002"});
  EXPECT_EQ(count_wrong(step2_, 2), 0);
}

/// Then the save is done; but what `latest` names must not be deleted.
TEST_F(PublishTest, LatestThatCannotBeMovedCostsNoCheckpoint) {
  const Retention one{1, 0, 0};
  save_version(1, 1, one);
  barrier();
  rename_failure = {(folder() / "latest").string(), 0, 1};
  EXPECT_EQ(error_of<IoError>([&] { save_version(2, 2, one); }), "no error");
  expect_names({"latest", "step-00000001", "step-00000002"});
  EXPECT_EQ(find_latest(folder()), step1_);
  EXPECT_EQ(count_wrong(step2_, 2), 0);
  save_version(3, 3, one);
  expect_names({"latest", "step-00000003"});
  EXPECT_EQ(find_latest(folder()), step3_);
}

}  // namespace
}  // namespace red::checkpoint::test
