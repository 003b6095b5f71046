// Folders that are no whole checkpoint of ours, by accident or by malice: each is a DataError that says what
// is wrong and where. One rank: reading is nobody else's affair.
#include <gtest/gtest.h>
#include <unistd.h>

#include "checkpoint/h5.hpp"
#include "checkpoint/manifest.hpp"
#include "checkpoint/shard_reader.hpp"
#include "checkpoint/shard_writer.hpp"
#include "checkpoint/test_run.hpp"
#include "checkpoint/tiled_model.hpp"
#include "checkpoint/verify.hpp"

namespace red::checkpoint::test {
namespace {

namespace fs = std::filesystem;

const LogicalTensor kMatrix{"parameters/w", 6, 4, DType::fp32};
const LogicalTensor kVector{"parameters/gain", 5, 0, DType::fp32};

class DamageTest : public CheckpointTest {
 protected:
  /// A whole checkpoint by three writers, as save() of three ranks makes it.
  DamageTest() {
    for (int writer = 0; writer < 3; ++writer) {
      OwnedShards owned(0);
      owned.add(kMatrix, tile(writer));
      if (writer == 1) owned.add(kVector, whole(kVector));
      owned.fill(1);
      write_shard(writer, owned.shards());
    }
    write_index_of(true_files(), {{{tile(0), 0}, {tile(1), 1}, {tile(2), 2}}});
  }
  static Rectangle tile(int writer) { return {2 * writer, 2, 0, 4}; }

  void write_shard(int writer, const std::vector<Shard>& shards, int64_t step = 7) {
    fs::create_directories(checkpoint_);
    fs::remove(checkpoint_ / shard_file_name(writer));
    const Metadata metadata = metadata_of(step);
    structure_[writer] = write_shard_file(checkpoint_ / shard_file_name(writer),
                                          {step, metadata.sample_cursor, writer, 3}, shards, [] {})
                             .structure_crc32c;
  }
  void write_index_of(const std::vector<ShardFile>& files, std::vector<Tile> tiles) const {
    fs::remove(index());
    fs::remove(checkpoint_ / kIndexChecksumName);
    for (Tile& tile : tiles) tile.crc32c = tile_crc32c(kMatrix, tile.region, 1);
    const std::vector<TiledTensor> tensors = {
        {kVector, {{whole(kVector), 1, tile_crc32c(kVector, whole(kVector), 1)}}}, {kMatrix, tiles}};
    write_index(index(), metadata_of(7), tensors, files);
  }
  std::vector<ShardFile> true_files() const {
    std::vector<ShardFile> files;
    for (int writer = 0; writer < 3; ++writer)
      files.push_back({shard_file_name(writer), fs::file_size(checkpoint_ / shard_file_name(writer)),
                       structure_.at(writer)});
    return files;
  }
  fs::path index() const { return checkpoint_ / kIndexName; }
  fs::path shard(int writer) const { return checkpoint_ / shard_file_name(writer); }

  h5::File writable(const fs::path& path) const {
    return h5::File(H5Fopen(path.c_str(), H5F_ACC_RDWR, h5::file_access().get()));
  }
  /// Puts another value in place of an integer attribute of the index.
  void change_attribute(const char* name, int64_t value) const {
    const h5::File file = writable(index());
    EXPECT_GE(H5Adelete(file.get(), name), 0);
    h5::write_int(file.get(), name, value);
  }
  /// The index as it is now counts as the one that was written.
  void seal_index() const {
    fs::remove(checkpoint_ / kIndexChecksumName);
    if (fs::exists(index())) write_index_checksum(checkpoint_);
  }
  void flip_byte(const fs::path& path, uint64_t at) const {
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(static_cast<std::streamoff>(at));
    const auto byte = static_cast<char>(file.get() ^ 0x10);
    file.seekp(static_cast<std::streamoff>(at));
    file.put(byte);
  }
  /// Where a tile's bytes lie in its file.
  uint64_t offset_of(int writer) const {
    const h5::File file = h5::open_file(shard(writer));
    return H5Dget_offset(h5::open_dataset(file.get(), tile_name(kMatrix, tile(writer))).get());
  }
  /// What a reader of everything says when the index is the one that was written.
  std::string reading() const {
    seal_index();
    return reading_unsealed();
  }
  std::string reading_unsealed() const {
    return error_of<DataError>([&] {
      const Reader reader(checkpoint_);
      OwnedShards owned(1);
      owned.add(kMatrix, whole(kMatrix));
      owned.add(kVector, whole(kVector));
      for (const Shard& region : owned.shards()) reader.read(region);
      EXPECT_EQ(owned.count_wrong(1), 0);
    });
  }

  const fs::path checkpoint_ = folder() / "step-00000007";
  std::map<int, uint32_t> structure_;  ///< checksums by writer
};

TEST_F(DamageTest, NothingIsWrongAtFirst) {
  EXPECT_EQ(reading(), "no error");
}

TEST_F(DamageTest, ShardFilesMissingOrOfAnotherSize) {
  fs::resize_file(shard(0), fs::file_size(shard(0)) - 1);
  EXPECT_TRUE(has(reading(), "shard-00000.h5: "));
  EXPECT_TRUE(has(reading(), " bytes instead of "));
  EXPECT_TRUE(has(reading(), checkpoint_.string()));
  fs::remove(shard(2));
  EXPECT_TRUE(has(reading(), "2 of 3 shard files"));
  EXPECT_TRUE(has(reading(), "shard-00002.h5 is missing"));
}

TEST_F(DamageTest, ShardFileOfAnotherSave) {
  OwnedShards owned(0);
  owned.add(kMatrix, tile(0));
  owned.fill(1);
  write_shard(0, owned.shards(), 8);
  EXPECT_TRUE(has(reading(), "belongs to another save: step 8"));
}

TEST_F(DamageTest, ShardFileWithoutTheTile) {
  OwnedShards owned(0);
  owned.add({"parameters/v", 6, 4, DType::fp32}, tile(0));
  owned.fill(1);
  write_shard(0, owned.shards());
  EXPECT_TRUE(has(reading(), "dataset 'parameters/w[0:2,0:4]' is missing"));
}

TEST_F(DamageTest, TileOfAnotherShapeTypeOrStorage) {
  const std::string name = tile_name(kMatrix, tile(0));
  const auto replace = [&](hid_t type, std::vector<hsize_t> shape, bool chunked) {
    {
      const h5::File file = writable(shard(0));
      EXPECT_GE(H5Ldelete(file.get(), name.c_str(), H5P_DEFAULT), 0);
      const h5::Space space(H5Screate_simple(static_cast<int>(shape.size()), shape.data(), nullptr));
      const h5::PropertyList create(H5Pcreate(H5P_DATASET_CREATE));
      if (chunked) H5Pset_chunk(create.get(), static_cast<int>(shape.size()), shape.data());
      H5Pset_alloc_time(create.get(), H5D_ALLOC_TIME_EARLY);
      const h5::Dataset dataset(
          H5Dcreate2(file.get(), name.c_str(), type, space.get(), H5P_DEFAULT, create.get(), H5P_DEFAULT));
      EXPECT_TRUE(dataset);
    }
    write_index_of(true_files(), {{tile(0), 0}, {tile(1), 1}, {tile(2), 2}});
    return reading();
  };
  EXPECT_TRUE(has(replace(H5T_IEEE_F32LE, {4, 2}, false), "has another shape or element type"));
  EXPECT_TRUE(has(replace(H5T_IEEE_F32LE, {8}, false), "has another shape or element type"));
  EXPECT_TRUE(has(replace(H5T_STD_I32LE, {2, 4}, false), "has another shape or element type"));
  EXPECT_TRUE(has(replace(H5T_IEEE_F32BE, {2, 4}, false), "is none of fp32"));
  EXPECT_TRUE(has(replace(H5T_IEEE_F32LE, {2, 4}, true), "not stored contiguously"));
}

TEST_F(DamageTest, NoIndexOrNoneOfOurs) {
  fs::rename(index(), folder() / "index.h5");
  EXPECT_TRUE(has(reading(), "it has no index.h5"));
  std::ofstream(index()) << "not HDF5";
  EXPECT_TRUE(has(reading(), "index.h5: cannot be opened as an HDF5 file"));
  fs::copy_file(shard(0), index(), fs::copy_options::overwrite_existing);
  EXPECT_TRUE(has(reading(), "is no index of a checkpoint"));
  EXPECT_TRUE(
      has(error_of<DataError>([&] { Reader reader(folder() / "nowhere"); }), "no such checkpoint folder"));
}

TEST_F(DamageTest, IndexCutShort) {
  const auto size = fs::file_size(index());
  for (const uint64_t kept : {size - 1, size / 2, uint64_t{100}, uint64_t{0}}) {
    fs::resize_file(index(), kept);
    EXPECT_TRUE(has(reading(), "index.h5: cannot be opened as an HDF5 file")) << kept;
  }
}

TEST_F(DamageTest, IndexThatIsNotTheOneWritten) {
  EXPECT_EQ(reading_unsealed(), "no error");
  change_attribute("step", 8);
  EXPECT_TRUE(has(reading_unsealed(), "index.h5' is damaged: the CRC-32C of its bytes is "));
  change_attribute("step", 7);
  seal_index();
  EXPECT_EQ(reading_unsealed(), "no error");
  fs::remove(checkpoint_ / kIndexChecksumName);
  EXPECT_TRUE(has(reading_unsealed(), "index.crc32c, the checksum of index.h5, is missing"));
}

TEST_F(DamageTest, AFlippedBitOfATile) {
  flip_byte(shard(2), offset_of(2) + 31);
  EXPECT_TRUE(
      has(reading(), "shard-00002.h5': 'parameters/w[4:6,0:4]' is damaged: the CRC-32C of its bytes"));
  // However little of the tile is asked for, and not where it is another tile.
  const Reader reader(checkpoint_), trusting(checkpoint_, Check::nothing);
  float memory[4] = {};
  EXPECT_TRUE(has(error_of<DataError>([&] { reader.read({kMatrix, 4, 1, 1, 1, memory, 1}); }), "is damaged"));
  EXPECT_NO_THROW(reader.read({kMatrix, 2, 1, 0, 4, memory, 4}));
  EXPECT_NO_THROW(trusting.read({kMatrix, 4, 1, 1, 1, memory, 1}));
}

TEST_F(DamageTest, ATileThatTheIndexDoesNotMean) {
  // A file of the same save and size, right in itself.
  OwnedShards owned(0);
  owned.add(kMatrix, tile(0));
  owned.fill(2);
  write_shard(0, owned.shards());
  EXPECT_TRUE(has(reading(), "shard-00000.h5': 'parameters/w[0:2,0:4]' has the checksum"));
}

TEST_F(DamageTest, VerificationSeesEveryByteOfEveryFile) {
  EXPECT_TRUE(find_damage(checkpoint_).empty());
  int num_flips = 0;
  for (const fs::path& path : {index(), checkpoint_ / kIndexChecksumName, shard(0), shard(1), shard(2)}) {
    const uint64_t num_bytes = fs::file_size(path), stride = std::max<uint64_t>(1, num_bytes / 150);
    for (uint64_t at = num_flips % 7; at < num_bytes; at += stride, ++num_flips) {
      flip_byte(path, at);
      EXPECT_FALSE(find_damage(checkpoint_).empty()) << path << ", byte " << at;
      flip_byte(path, at);
    }
  }
  EXPECT_GT(num_flips, 500);
  EXPECT_TRUE(find_damage(checkpoint_).empty());
}

TEST_F(DamageTest, VerificationNamesAllDamage) {
  flip_byte(shard(0), offset_of(0));
  fs::resize_file(shard(1), fs::file_size(shard(1)) - 1);
  fs::remove(shard(2));
  const std::vector<std::string> all = find_damage(checkpoint_);
  ASSERT_EQ(all.size(), 3U);
  EXPECT_TRUE(has(all[0], "shard-00000.h5': 'parameters/w[0:2,0:4]' is damaged"));
  EXPECT_TRUE(has(all[1], "shard-00001.h5' has "));
  EXPECT_TRUE(has(all[2], "shard-00002.h5' is missing"));
  // Several who share the files find the same between them.
  std::vector<std::string> shared;
  for (int i = 0; i < 2; ++i) {
    for (const std::string& line : find_damage(checkpoint_, {i, 2})) shared.push_back(line);
  }
  std::sort(shared.begin(), shared.end());
  EXPECT_EQ(shared, all);
}

TEST_F(DamageTest, OtherFormatVersions) {
  change_attribute("format_minor", kFormatMinor + 1);
  EXPECT_EQ(reading(), "no error");
  change_attribute("format_major", kFormatMajor + 1);
  EXPECT_TRUE(has(reading(), "has checkpoint format 2.2; this program reads 1.x"));
}

TEST_F(DamageTest, MissingMetadata) {
  {
    const h5::File file = writable(index());
    EXPECT_GE(H5Adelete(file.get(), "sample_cursor"), 0);
  }
  EXPECT_TRUE(has(reading(), "attribute 'sample_cursor' is missing"));
}

TEST_F(DamageTest, LinksOutOfTheFile) {
  {
    const h5::File file = writable(index());
    EXPECT_GE(H5Lcreate_external("/etc/passwd", "/", file.get(), "parameters/x", H5P_DEFAULT, H5P_DEFAULT),
              0);
  }
  EXPECT_TRUE(has(reading(), "'x' is a soft or external link"));
  write_index_of(true_files(), {{tile(0), 0}, {tile(1), 1}, {tile(2), 2}});
  {
    const h5::File file = writable(shard(0));
    const std::string name = tile_name(kMatrix, tile(0));
    EXPECT_GE(H5Ldelete(file.get(), name.c_str(), H5P_DEFAULT), 0);
    EXPECT_GE(H5Lcreate_external("shard-00001.h5", "/parameters/w[2:4,0:4]", file.get(), name.c_str(),
                                 H5P_DEFAULT, H5P_DEFAULT),
              0);
  }
  write_index_of(true_files(), {{tile(0), 0}, {tile(1), 1}, {tile(2), 2}});
  EXPECT_TRUE(has(reading(), "dataset 'parameters/w[0:2,0:4]' is missing"));
}

TEST_F(DamageTest, ShardNamesThatLeaveTheFolder) {
  for (const char* name : {"../shard-00000.h5", "/etc/passwd", "..", "deeper/shard.h5", ""}) {
    std::vector<ShardFile> files = true_files();
    files[0].name = name;
    write_index_of(files, {{tile(0), 0}, {tile(1), 1}, {tile(2), 2}});
    EXPECT_TRUE(has(reading(), "only plain names beside the index are allowed")) << name;
  }
}

TEST_F(DamageTest, TilesThatDoNotCoverTheTensor) {
  write_index_of(true_files(), {{tile(0), 0}, {tile(2), 2}});
  EXPECT_TRUE(
      has(reading(), "tensor 'parameters/w' (6, 4) fp32: no writer holds rows [2, 3) x columns [0, 1)"));
  write_index_of(true_files(), {{tile(0), 0}, {tile(1), 1}, {tile(2), 2}, {{1, 2, 0, 4}, 1}});
  EXPECT_TRUE(has(reading(), "both give rows [1, 2)"));
  write_index_of(true_files(), {{tile(0), 0}, {tile(1), 1}, {tile(2), 4}});
  EXPECT_TRUE(has(reading(), "lies in 'shard-00004.h5', which is not among the shard files"));
}

TEST_F(DamageTest, TensorThatIsNoVirtualDataset) {
  {
    const h5::File file = writable(index());
    EXPECT_GE(H5Ldelete(file.get(), "parameters/gain", H5P_DEFAULT), 0);
    const hsize_t extent = 5;
    const h5::Space space(H5Screate_simple(1, &extent, nullptr));
    const h5::Dataset dataset(H5Dcreate2(file.get(), "parameters/gain", H5T_IEEE_F32LE, space.get(),
                                         H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
  }
  EXPECT_TRUE(has(reading(), "tensor 'parameters/gain' is no virtual dataset"));
}

TEST_F(DamageTest, ShapesThatCannotBe) {
  {
    const h5::File file = writable(index());
    const hsize_t huge[3] = {hsize_t{1} << 40, hsize_t{1} << 40, 2};
    const h5::Space space(H5Screate_simple(2, huge, nullptr));
    const h5::PropertyList create(H5Pcreate(H5P_DATASET_CREATE));
    const hsize_t chunk[2] = {1024, 1024};
    H5Pset_chunk(create.get(), 2, chunk);
    const h5::Dataset dataset(H5Dcreate2(file.get(), "parameters/huge", H5T_IEEE_F32LE, space.get(),
                                         H5P_DEFAULT, create.get(), H5P_DEFAULT));
    EXPECT_TRUE(dataset);
  }
  EXPECT_TRUE(
      has(reading(), "tensor 'parameters/huge': shape (1099511627776, 1099511627776) fp32 cannot be"));
}

TEST_F(DamageTest, WhatIsAskedMustBeThere) {
  const Reader reader(checkpoint_);
  float memory[24] = {};
  const auto asking = [&](const LogicalTensor& tensor, int64_t num_rows) {
    return error_of<DataError>([&] {
      reader.read({tensor, 0, num_rows, 0, whole(tensor).num_cols, memory, whole(tensor).num_cols});
    });
  };
  EXPECT_TRUE(has(asking({"parameters/v", 6, 4, DType::fp32}, 6), "has no tensor 'parameters/v'"));
  EXPECT_TRUE(has(asking({"parameters/w", 7, 4, DType::fp32}, 6),
                  "tensor 'parameters/w' is (6, 4) fp32, but (7, 4) fp32 is wanted"));
  EXPECT_TRUE(has(asking({"parameters/w", 6, 4, DType::int32}, 6), "but (6, 4) int32 is wanted"));
  EXPECT_TRUE(
      has(asking({"parameters/gain", 5, 1, DType::fp32}, 5), "is (5) fp32, but (5, 1) fp32 is wanted"));
  EXPECT_THROW(reader.read({kMatrix, 0, 7, 0, 4, memory, 4}), LogicError);
}

int count_descriptors() {
  int count = 0;
  for ([[maybe_unused]] const auto& entry : fs::directory_iterator("/proc/self/fd")) ++count;
  return count;
}

TEST_F(DamageTest, OnlySoManyFilesAreOpen) {
  constexpr int num_writers = 150;
  const fs::path many = folder() / "step-00000001";
  fs::create_directories(many);
  const LogicalTensor tensor{"parameters/long", 3 * num_writers, 2, DType::fp32};
  const Metadata metadata = metadata_of(1);
  std::vector<ShardFile> files;
  TiledTensor tiled{tensor, {}};
  for (int writer = 0; writer < num_writers; ++writer) {
    OwnedShards owned(0);
    owned.add(tensor, {3 * writer, 3, 0, 2});
    owned.fill(1);
    const ShardRecord record =
        write_shard_file(many / shard_file_name(writer), {1, metadata.sample_cursor, writer, num_writers},
                         owned.shards(), [] {});
    files.push_back({shard_file_name(writer), record.num_bytes, record.structure_crc32c});
    tiled.tiles.push_back({{3 * writer, 3, 0, 2}, writer, record.tile_crc32c.at(0)});
  }
  write_index(many / kIndexName, metadata, {&tiled, 1}, files);
  for (const std::size_t most : {Reader::kMostOpenShards, std::size_t{2}, std::size_t{0}}) {
    const int before = count_descriptors();
    const Reader reader(many, Check::checksums, most);
    for (int round = 0; round < 2; ++round) {
      OwnedShards owned(1);
      owned.add(tensor, whole(tensor));
      reader.read(owned.shards()[0]);
      EXPECT_EQ(owned.count_wrong(1), 0);
      // The index, and the shards, each twice.
      EXPECT_EQ(count_descriptors() - before, most == 0 ? 0 : 1 + 2 * static_cast<int>(most));
    }
  }
}

TEST_F(DamageTest, NothingStaysOpenAfterErrors) {
  EXPECT_EQ(reading(), "no error");
  const int before = count_descriptors();
  fs::remove(shard(2));
  EXPECT_NE(reading(), "no error");
  write_index_of(
      {{shard_file_name(0), fs::file_size(shard(0))}, {shard_file_name(1), fs::file_size(shard(1))}},
      {{tile(0), 0}, {tile(1), 1}, {tile(2), 2}});
  EXPECT_NE(reading(), "no error");
  EXPECT_EQ(count_descriptors(), before);
}

}  // namespace
}  // namespace red::checkpoint::test
