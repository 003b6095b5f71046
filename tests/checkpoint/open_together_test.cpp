// A checkpoint that all ranks open together: each compares a share of what is wanted, all hear of what is
// damaged there and of nothing else, and each reads what it asks for.
#include "checkpoint/open_together.hpp"

#include <gtest/gtest.h>

#include "checkpoint/exchange.hpp"
#include "checkpoint/test_run.hpp"
#include "checkpoint/tiled_model.hpp"
#include "checkpoint/verify.hpp"

namespace red::checkpoint::test {
namespace {

namespace fs = std::filesystem;

class OpenTogether : public CheckpointTest {
 protected:
  OpenTogether() {
    OwnedShards owned = shards_of(tilings()[4], rank(), size(), 0);
    owned.fill(1);
    save(folder(), metadata_of(1), owned.shards(), world());
  }
  /// One of the last rank's patches of a tensor, somewhere in the file, gets another bit.
  void damage(const std::string& path) {
    if (rank() == 0) {
      std::string bytes = text_of(shard_);
      for (const LogicalTensor& tensor : model_tensors()) {
        if (tensor.path != path) continue;
        const Rectangle region = tilings()[4].regions(tensor, size() - 1, size()).back();
        std::string patch;
        for (int64_t row = region.row_begin; row < region.row_end(); ++row) {
          for (int64_t col = region.col_begin; col < region.col_end(); ++col) {
            for (const std::byte byte : element_bytes(tensor, row, col, 1)) patch += static_cast<char>(byte);
          }
        }
        const std::size_t at = bytes.find(patch);
        EXPECT_NE(at, std::string::npos) << path;
        if (at < bytes.size()) bytes[at] = static_cast<char>(bytes[at] ^ 1);
      }
      fs::permissions(shard_, fs::perms::owner_write, fs::perm_options::add);
      std::ofstream(shard_, std::ios::binary) << bytes;
    }
    barrier();
  }
  std::string error_with(const std::string& prefix) {
    return error_of<DataError>([&] { open_together(checkpoint_, world(), prefix); });
  }

  const fs::path checkpoint_ = folder() / "step-00000001", shard_ = checkpoint_ / shard_file_name(size() - 1);
};

constexpr const char* kState = "optimizer/v/embedding.weight";
constexpr const char* kEmbedding = "parameters/embedding.weight";

TEST_F(OpenTogether, ReadsWhatTheRanksAskFor) {
  const Reader reader = open_together(checkpoint_, world(), "");
  for (const Tiling& tiling : tilings()) {
    OwnedShards owned = shards_of(tiling, rank(), size(), 2);
    for (const Shard& shard : owned.shards()) reader.read(shard);
    EXPECT_EQ(owned.count_wrong(1), 0) << tiling.name;
  }
}

TEST_F(OpenTogether, WhatIsDamagedIsEverybodysErrorWhereItIsWanted) {
  damage(kState);
  const std::string parameters = "parameters/";
  const Reader reader = open_together(checkpoint_, world(), parameters);
  EXPECT_EQ(reader.metadata().step, 1);
  if (size() > 1) {  // one rank compares as it reads
    const std::string text = error_with("");
    EXPECT_TRUE(has(text, "checkpoint '" + checkpoint_.string() + "' is damaged"));
    EXPECT_TRUE(has(text, shard_.string() + "': '" + kState));
    EXPECT_FALSE(has(text, parameters));
    EXPECT_EQ(text, text_of_first_rank(world(), text));
    damage(kEmbedding);
    EXPECT_TRUE(has(error_with(parameters), kEmbedding));
    if (rank() == 0) fs::remove(shard_);
    barrier();
    EXPECT_TRUE(has(error_with(parameters), shard_file_name(size() - 1)));
  }
}

TEST_F(OpenTogether, EachTileIsInOneShare) {
  damage(kEmbedding);
  for (const int count : {1, 2, 3, 7, 50}) {
    std::vector<std::string> all;
    for (int index = 0; index < count; ++index) {
      for (const std::string& line : find_damaged_tiles(checkpoint_, "", {index, count})) all.push_back(line);
    }
    EXPECT_EQ(all.size(), 1U) << count;
  }
}

}  // namespace
}  // namespace red::checkpoint::test
