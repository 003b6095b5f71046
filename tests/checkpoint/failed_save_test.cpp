// Saves that fail: every rank says the same, what stood before stands as it was, and the next save of the
// same step succeeds.
#include <gtest/gtest.h>
#include <sys/mount.h>

#include <utility>

#include "checkpoint/file_size_limit.hpp"
#include "checkpoint/folders.hpp"
#include "checkpoint/saver_test.hpp"

namespace red::checkpoint::test {
namespace {

namespace fs = std::filesystem;

class FailedSaveTest : public SaverTest {
 protected:
  void save_version(const fs::path& where, int64_t step, int version) {
    OwnedShards owned = shards_of(tilings()[0], rank(), size(), 2);
    owned.fill(version);
    save(where, metadata_of(step), owned.shards(), world());
  }
};

TEST_F(FailedSaveTest, WrongTilesAreTheSameLogicErrorEverywhere) {
  float memory[64] = {};
  const LogicalTensor tensor{"parameters/a", 8, 4, DType::fp32};
  const auto saving = [&](std::vector<Shard> shards, int64_t step) {
    return [this, shards = std::move(shards), step] { save(folder(), metadata_of(step), shards, world()); };
  };
  const auto fails_with = [&](const std::vector<Shard>& shards, const std::string& part, int64_t step = 1) {
    const std::string text = error_of<LogicError>(saving(shards, step));
    EXPECT_TRUE(has(text, part));
    EXPECT_EQ(text, text_of_rank_0(text));
  };
  std::vector<Shard> mine, nothing;
  if (rank() == 0) mine.push_back({tensor, 0, 7, 0, 4, memory, 4});
  fails_with(
      mine,
      "tensor 'parameters/a' (8, 4) fp32 cannot be saved: no writer holds rows [7, 8) x columns [0, 1)");
  mine = {{tensor, 0, 8, 0, 4, memory, 4}};
  if (size() == 1) mine.push_back(mine[0]);
  fails_with(mine,
             size() == 1 ? "writer 0 gives rows [0, 8) x columns [0, 4) twice" : "writers 0 and 1 both give");
  mine.clear();
  if (rank() == last()) mine.push_back({tensor, 0, 9, 0, 4, memory, 4});
  fails_with(mine, fmt::format("rank {}", last()));
  if (size() > 1) {
    fails_with(nothing, "saves step", rank() == last() ? 2 : 1);
    LogicalTensor other = tensor;
    other.dtype = rank() == last() ? DType::int32 : DType::fp32;
    mine = {{other, rank(), 1, 0, 4, memory, 4}};
    fails_with(mine, "is (8, 4) int32 on rank");
  }
  EXPECT_TRUE(names_in(folder()).empty());
}

TEST_F(FailedSaveTest, OneRankOutOfSpaceIsEverybodysError) {
  save_version(folder(), 1, 1);
  // From a limit that the bulk of the bytes exceeds down to one that stops HDF5's own first bytes.
  for (const rlim_t limit : {8000, 100, 0}) {
    SCOPED_TRACE(limit);
    std::string text;
    {
      std::optional<FileSizeLimit> full;
      if (rank() == last()) full.emplace(limit);
      text = error_of<IoError>([&] { save_version(folder(), 2, 2); });
    }
    EXPECT_TRUE(has(text, fmt::format("rank {} on ", last())));
    EXPECT_TRUE(has(text, "step-00000002.partial/" + shard_file_name(last())));
    EXPECT_TRUE(has(text, "(errno 27)"));
    EXPECT_EQ(text, text_of_rank_0(text));
    barrier();
    EXPECT_EQ(names_in(folder()), (std::set<std::string>{"latest", "step-00000001"}));
    EXPECT_EQ(find_latest(folder()), folder() / "step-00000001");
    EXPECT_EQ(count_wrong(folder() / "step-00000001", 1), 0);
    barrier();
  }
  save_version(folder(), 2, 2);
  EXPECT_EQ(names_in(folder()), (std::set<std::string>{"latest", "step-00000001", "step-00000002"}));
  EXPECT_EQ(count_wrong(folder() / "step-00000002", 2), 0);
}

TEST_F(FailedSaveTest, SeveralRanksOutOfSpaceAreCounted) {
  const FileSizeLimit full(100);
  const std::string text = error_of<IoError>([&] { save_version(folder(), 1, 1); });
  EXPECT_TRUE(has(text, "rank 0 on "));
  if (size() > 1) {
    EXPECT_TRUE(has(text, fmt::format("and {} more of {} ranks failed", size() - 1, size())));
  }
}

TEST_F(FailedSaveTest, FullFileSystem) {
  // Every rank asks the same kernel, so either all can mount or none.
  const fs::path small = folder() / "small";
  if (rank() == 0) {
    fs::create_directory(small);
    if (::mount("tmpfs", small.c_str(), "tmpfs", 0, "size=256k") != 0) fs::remove(small);
  }
  barrier();
  if (!fs::exists(small)) GTEST_SKIP() << "this user may not mount a tmpfs";
  std::string text = error_of<IoError>([&] {
    for (int64_t step = 1; step < 10; ++step) save_version(small, step, static_cast<int>(step));
  });
  EXPECT_TRUE(has(text, "No space left on device"));
  EXPECT_TRUE(has(text, small.string()));
  EXPECT_EQ(text, text_of_rank_0(text));
  const auto latest = find_latest(small);
  EXPECT_TRUE(latest);
  if (latest) {
    EXPECT_EQ(count_wrong(*latest, static_cast<int>(Reader(*latest).metadata().step)), 0);
  }
  barrier();
  if (rank() == 0) {
    EXPECT_EQ(::mount(nullptr, small.c_str(), nullptr, MS_REMOUNT | MS_RDONLY, nullptr), 0);
  }
  barrier();
  text = error_of<IoError>([&] { save_version(small, 20, 1); });
  EXPECT_TRUE(has(text, "rank 0 on "));
  EXPECT_TRUE(has(text, "Read-only file system (errno 30)"));
  barrier();
  if (rank() == 0) {
    EXPECT_EQ(::umount(small.c_str()), 0);
  }
}

TEST_F(FailedSaveTest, FolderThatCannotBe) {
  if (rank() == 0) std::ofstream(folder() / "file") << "no folder";
  barrier();
  const std::string text = error_of<IoError>([&] { save_version(folder() / "file/checkpoints", 1, 1); });
  EXPECT_TRUE(has(text, "rank 0 on "));
  EXPECT_TRUE(has(text, "errno 20"));
}

}  // namespace
}  // namespace red::checkpoint::test
