// The index at the size of the largest layout, 652 tensors cut among 256 writers, takes four times what a
// quarter of the tensors takes, not sixteen times. Shard files are empty ones of the right size: opening a
// checkpoint must not read them.
#include <gtest/gtest.h>

#include <ctime>

#include "checkpoint/manifest.hpp"
#include "checkpoint/test_run.hpp"
#include "checkpoint/tiled_model.hpp"

namespace red::checkpoint::test {
namespace {

namespace fs = std::filesystem;

using ScaleTest = CheckpointTest;

/// Processor time: the machine may have more to do.
class Stopwatch {
 public:
  double seconds() const { return static_cast<double>(std::clock() - start_) / CLOCKS_PER_SEC; }

 private:
  std::clock_t start_ = std::clock();
};

struct Times {
  double open_s = 0.0, map_s = 0.0;
};

Times times_of(const fs::path& folder, int num_tensors, int num_writers) {
  std::vector<TiledTensor> tensors;
  for (int i = 0; i < num_tensors; ++i) {
    TiledTensor& tiled = tensors.emplace_back();
    tiled.tensor = {fmt::format("parameters/decoder.layers.{:03}.self_attention.query.weight", i), 4096, 4096,
                    DType::fp32};
    for (int writer = 0; writer < num_writers; ++writer)
      tiled.tiles.push_back({{16 * writer, 16, 0, 4096}, writer});
  }
  std::vector<ShardFile> files;
  for (int writer = 0; writer < num_writers; ++writer) files.push_back({shard_file_name(writer), 12345});
  fs::remove(folder / kIndexName);
  fs::remove(folder / kIndexChecksumName);
  write_index(folder / kIndexName, metadata_of(1), tensors, files);
  for (const ShardFile& file : files) {
    std::ofstream(folder / file.name).close();
    fs::resize_file(folder / file.name, file.num_bytes);
  }
  Times times;
  const Stopwatch opening;
  const Reader reader(folder);
  times.open_s = opening.seconds();
  EXPECT_EQ(reader.tensors().size(), static_cast<std::size_t>(num_tensors));
  EXPECT_EQ(reader.shard_files().size(), static_cast<std::size_t>(num_writers));

  const h5::File index = h5::open_file(folder / kIndexName);
  const Manifest manifest = read_manifest(index, "index");
  const Stopwatch mapping;
  std::size_t num_tiles = 0;
  for (const LogicalTensor& tensor : manifest.tensors)
    num_tiles += read_tiles(index, "index", manifest, tensor).tiles.size();
  times.map_s = mapping.seconds();
  EXPECT_EQ(num_tiles, static_cast<std::size_t>(num_tensors) * num_writers);
  std::printf("index of %d tensors x %d writers: %.1f MiB, opened in %.2f s, all tiles found in %.2f s\n",
              num_tensors, num_writers, static_cast<double>(fs::file_size(folder / kIndexName)) / (1 << 20),
              times.open_s, times.map_s);
  return times;
}

TEST_F(ScaleTest, TimeGrowsWithTheTensors) {
  constexpr double quadratic = 16.0, least_s = 0.02;
  const Times quarter = times_of(folder(), 163, 256), whole = times_of(folder(), 652, 256);
  EXPECT_LT(whole.open_s, 0.75 * quadratic * std::max(quarter.open_s, least_s));
  EXPECT_LT(whole.map_s, 0.75 * quadratic * std::max(quarter.map_s, least_s));
}

}  // namespace
}  // namespace red::checkpoint::test
