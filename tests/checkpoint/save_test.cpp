// Whatever tiling wrote a checkpoint, any other reads the same elements: matrices, vectors, scalars, all
// element types, memory with and without gaps between rows.
#include <gtest/gtest.h>

#include "checkpoint/checkpoint.hpp"
#include "checkpoint/test_run.hpp"
#include "checkpoint/tiled_model.hpp"
#include "checkpoint/verify.hpp"

namespace red::checkpoint::test {
namespace {

using SaveTest = CheckpointTest;

TEST_F(SaveTest, TwoByTwoByHand) {
  float values[4] = {1, 2, 3, 4};
  const LogicalTensor tensor{"parameters/w", 2, 2, DType::fp32};
  std::vector<Shard> shards;
  if (rank() == 0) shards.push_back({tensor, 0, 2, 0, 2, values, 2});
  save(folder(), metadata_of(3), shards, world());

  EXPECT_EQ(find_latest(folder()), folder() / "step-00000003");
  EXPECT_EQ(text_of(folder() / "latest"), "step-00000003\n");
  EXPECT_EQ(names_in(folder()), (std::set<std::string>{"latest", "step-00000003"}));
  EXPECT_EQ(names_in(folder() / "step-00000003"),
            (std::set<std::string>{"index.crc32c", "index.h5", "shard-00000.h5"}));
  const Reader reader(folder() / "step-00000003");
  float column[2] = {0, 0};
  reader.read({tensor, 0, 2, 1, 1, column, 1});
  EXPECT_EQ(column[0], 2);
  EXPECT_EQ(column[1], 4);
}

TEST_F(SaveTest, MetadataReturn) {
  OwnedShards owned = shards_of(tilings()[0], rank(), size(), 0);
  owned.fill(1);
  Metadata metadata = metadata_of(12345678901);
  metadata.validation_loss = 2.5;
  save(folder(), metadata, owned.shards(), world());
  const Reader reader(folder() / "step-12345678901");
  EXPECT_EQ(reader.metadata().step, metadata.step);
  EXPECT_EQ(reader.metadata().sample_cursor, metadata.sample_cursor);
  EXPECT_EQ(reader.metadata().configuration, metadata.configuration);
  EXPECT_EQ(reader.metadata().layout, metadata.layout);
  EXPECT_EQ(reader.metadata().tokenizer_digest, metadata.tokenizer_digest);
  EXPECT_EQ(reader.metadata().extra, metadata.extra);
  EXPECT_EQ(reader.metadata().validation_loss, metadata.validation_loss);
  EXPECT_EQ(read_metadata(folder() / "step-12345678901").validation_loss, metadata.validation_loss);
  EXPECT_EQ(reader.shard_files().size(), static_cast<std::size_t>(size()));
  ASSERT_EQ(reader.tensors().size(), model_tensors().size());
  for (std::size_t i = 0; i < reader.tensors().size(); ++i) {
    EXPECT_EQ(reader.tensors()[i].path, model_tensors()[i].path);
    EXPECT_EQ(shape_text(reader.tensors()[i]), shape_text(model_tensors()[i]));
  }
  EXPECT_TRUE(reader.contains("optimizer/t"));
  EXPECT_FALSE(reader.contains("optimizer"));
}

TEST_F(SaveTest, EveryTilingReadsWhatEveryOtherWrote) {
  int step = 0;
  for (const Tiling& writing : tilings()) {
    ++step;
    SCOPED_TRACE(std::string("written as ") + writing.name);
    OwnedShards source = shards_of(writing, rank(), size(), step % 2 == 0 ? 3 : 0);
    source.fill(step);
    save(folder(), metadata_of(step), source.shards(), world());
    const auto latest = find_latest(folder());
    if (!latest) {
      ADD_FAILURE() << "no latest checkpoint";
      continue;
    }
    EXPECT_EQ(find_damage(*latest), std::vector<std::string>());
    const Reader reader(*latest);
    EXPECT_EQ(reader.metadata().step, step);
    for (const Tiling& reading : tilings()) {
      // Ranks that were not there when it was written, too: 3 ranks read what 4 wrote.
      for (const int readers : {1, 3, size()}) {
        for (const int64_t padding : {0, 5}) {
          SCOPED_TRACE(fmt::format("read as {} of {}, padding {}", reading.name, readers, padding));
          OwnedShards target = shards_of(reading, rank() % readers, readers, padding);
          for (const Shard& shard : target.shards()) reader.read(shard);
          EXPECT_EQ(target.count_wrong(step), 0);
        }
      }
    }
  }
}

TEST_F(SaveTest, RowsLongerThanTheStagingBuffer) {
  // 9 MiB a row: neither writer nor reader may copy a whole row through its 8 MiB buffer.
  constexpr int64_t cols = 9 * (1 << 18) + 1, padding = 7, num_rows = 3;
  const LogicalTensor tensor{"parameters/wide", num_rows, cols, DType::fp32};
  std::vector<float> values(num_rows * (cols + padding));
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i % 1000003);
  std::vector<Shard> shards;
  if (rank() == size() - 1) shards.push_back({tensor, 0, num_rows, 0, cols, values.data(), cols + padding});
  save(folder(), metadata_of(1), shards, world());
  const Reader reader(*find_latest(folder()));
  std::vector<float> read(num_rows * (cols + 1));
  reader.read({tensor, 0, num_rows, 0, cols, read.data(), cols + 1});
  int64_t wrong = 0;
  for (int64_t r = 0; r < num_rows; ++r) {
    for (int64_t c = 0; c < cols; ++c) wrong += read[r * (cols + 1) + c] != values[r * (cols + padding) + c];
  }
  EXPECT_EQ(wrong, 0);
  float corner[2] = {0, 0};
  reader.read({tensor, 1, 2, cols - 1, 1, corner, 1});
  EXPECT_EQ(corner[0], values[(cols + padding) + cols - 1]);
  EXPECT_EQ(corner[1], values[2 * (cols + padding) + cols - 1]);
}

TEST_F(SaveTest, ColumnsOfLongRows) {
  // Rows of 12,000 bytes: a few columns are read row by row, half of them through the staging buffer.
  constexpr int64_t rows = 50, cols = 3000;
  const LogicalTensor tensor{"parameters/long_rows", rows, cols, DType::fp32};
  OwnedShards source(0);
  if (rank() == 0) source.add(tensor, whole(tensor));
  source.fill(1);
  save(folder(), metadata_of(1), source.shards(), world());
  const Reader reader(*find_latest(folder()));
  OwnedShards target(2);
  target.add(tensor, {3, 40, 700, 11});
  target.add(tensor, {0, rows, 1000, 1500});
  target.add(tensor, {rows - 1, 1, cols - 1, 1});
  for (const Shard& shard : target.shards()) reader.read(shard);
  EXPECT_EQ(target.count_wrong(1), 0);
}

TEST_F(SaveTest, EqualSavesAreEqualFiles) {
  OwnedShards owned = shards_of(tilings()[2], rank(), size(), 1);
  owned.fill(1);
  for (const char* name : {"a", "b"}) save(folder() / name, metadata_of(1), owned.shards(), world());
  std::set<std::string> names = names_in(folder() / "a/step-00000001");
  EXPECT_EQ(names.size(), static_cast<std::size_t>(size()) + 2);
  for (const std::string& name : names)
    EXPECT_TRUE(text_of(folder() / "a/step-00000001" / name) == text_of(folder() / "b/step-00000001" / name))
        << name;
}

}  // namespace
}  // namespace red::checkpoint::test
