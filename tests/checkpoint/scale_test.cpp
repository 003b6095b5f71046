// The index at the size of the largest layout: 652 tensors cut among 256 writers. Shard files are empty ones
// of the right size: opening a checkpoint must not read them.
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

TEST_F(ScaleTest, IndexOf652TensorsBy256Writers) {
  constexpr int num_tensors = 652, num_writers = 256;
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
  const Stopwatch writing;
  write_index(folder() / kIndexName, metadata_of(1), tensors, files);
  const double write_s = writing.seconds();
  for (const ShardFile& file : files) {
    std::ofstream(folder() / file.name).close();
    fs::resize_file(folder() / file.name, file.num_bytes);
  }
  const Stopwatch opening;
  const Reader reader(folder());
  const double open_s = opening.seconds();
  ASSERT_EQ(reader.tensors().size(), static_cast<std::size_t>(num_tensors));
  EXPECT_EQ(reader.shard_files().size(), static_cast<std::size_t>(num_writers));

  const h5::File index = h5::open_file(folder() / kIndexName);
  const Manifest manifest = read_manifest(index, "index");
  const Stopwatch mapping;
  std::size_t num_tiles = 0;
  for (const LogicalTensor& tensor : manifest.tensors)
    num_tiles += read_tiles(index, "index", manifest, tensor).tiles.size();
  const double map_s = mapping.seconds();
  EXPECT_EQ(num_tiles, static_cast<std::size_t>(num_tensors) * num_writers);
  std::printf(
      "index of %d tensors x %d writers: %.1f MiB, written in %.2f s, opened in %.2f s, all tiles found in "
      "%.2f s\n",
      num_tensors, num_writers, static_cast<double>(fs::file_size(folder() / kIndexName)) / (1 << 20),
      write_s, open_s, map_s);
  // Three times what it takes, far below what anything quadratic would take.
  EXPECT_LT(open_s, 2.0);
  EXPECT_LT(map_s, 5.0);
}

}  // namespace
}  // namespace red::checkpoint::test
