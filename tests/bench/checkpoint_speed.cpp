// Writes, verifies and reads a checkpoint with the tensors of an 8B model at reduced width, and opens the
// index of one by 256 writers; prints seconds as JSON. checkpoint_speed FOLDER MIB
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <vector>

#include "base/error.hpp"
#include "checkpoint/manifest.hpp"
#include "checkpoint/verify.hpp"
#include "parallel/mpi_environment.hpp"

namespace {

using namespace red;
using namespace red::checkpoint;

constexpr int kLayers = 28;  ///< 14 and 14
constexpr int kTensorsOfALayer = 11;

template <class F>
double seconds_of(const F& work) {
  const auto begin = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

/// Parameters and second moments of so many layers; matrices take about num_bytes.
std::vector<LogicalTensor> tensors_of(int64_t num_bytes) {
  std::vector<LogicalTensor> tensors;
  const int64_t cols = 1024, matrices = 2LL * kLayers * (kTensorsOfALayer - 2);
  const int64_t rows = std::max<int64_t>(1, num_bytes / (matrices * cols * 4));
  for (const char* kind : {"parameters", "optimizer/v"}) {
    for (int layer = 0; layer < kLayers; ++layer) {
      for (int i = 0; i < kTensorsOfALayer; ++i) {
        const bool gain = i >= kTensorsOfALayer - 2;
        tensors.push_back({fmt::format("{}/layers.{:02}.tensor.{:02}", kind, layer, i), gain ? cols : rows,
                           gain ? 0 : cols, DType::fp32});
      }
    }
  }
  return tensors;
}

/// What was written is read from the disk, not from the page cache; the kernel drops only what is on the disk.
void drop_from_cache(const std::filesystem::path& checkpoint) {
  for (const auto& entry : std::filesystem::directory_iterator(checkpoint)) {
    const int file = ::open(entry.path().c_str(), O_RDONLY | O_CLOEXEC);
    if (file < 0 || ::fsync(file) != 0 || ::posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED) != 0)
      throw IoError("cannot drop '{}' from the page cache", entry.path().string());
    ::close(file);
  }
}

struct OwnTensors {
  std::vector<std::vector<float>> values;
  std::vector<Shard> shards;
};

OwnTensors memory_of(const std::vector<LogicalTensor>& tensors) {
  OwnTensors memory;
  for (const LogicalTensor& tensor : tensors) {
    const int64_t cols = std::max<int64_t>(1, tensor.cols);
    auto& values = memory.values.emplace_back(static_cast<std::size_t>(tensor.rows * cols));
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i % 8191);
    memory.shards.push_back({tensor, 0, tensor.rows, 0, cols, values.data(), cols});
  }
  return memory;
}

/// The index of 652 tensors in tiles of 256 writers, whose files are empty and of the right size.
double seconds_to_open_8b(const std::filesystem::path& folder) {
  std::filesystem::create_directories(folder);
  std::vector<TiledTensor> tensors;
  for (int i = 0; i < 652; ++i) {
    TiledTensor& tiled = tensors.emplace_back();
    tiled.tensor = {fmt::format("parameters/decoder.layers.{:03}.self_attention.query.weight", i), 4096, 4096,
                    DType::fp32};
    for (int writer = 0; writer < 256; ++writer) tiled.tiles.push_back({{16 * writer, 16, 0, 4096}, writer});
  }
  std::vector<ShardFile> files;
  for (int writer = 0; writer < 256; ++writer) {
    files.push_back({shard_file_name(writer), 12345});
    std::ofstream(folder / files.back().name).close();
    std::filesystem::resize_file(folder / files.back().name, files.back().num_bytes);
  }
  Metadata metadata;
  write_index(folder / kIndexName, metadata, tensors, files);
  return seconds_of([&] { const Reader reader(folder); });
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    fmt::print(stderr, "usage: checkpoint_speed FOLDER MIB\n");
    return 2;
  }
  const std::filesystem::path folder = argv[1];
  parallel::MpiEnvironment environment;
  try {
    OwnTensors memory = memory_of(tensors_of(std::atoll(argv[2]) << 20));
    Metadata metadata;
    metadata.step = 1;
    std::size_t num_bytes = 0;
    for (const auto& values : memory.values) num_bytes += values.size() * sizeof(float);
    nlohmann::ordered_json json;
    json["num_bytes"] = num_bytes;
    json["write_s"] = seconds_of([&] { save(folder, metadata, memory.shards, environment.world()); });
    const std::filesystem::path checkpoint = folder / "step-00000001";
    drop_from_cache(checkpoint);
    json["read_s"] = seconds_of([&] {
      const Reader reader(checkpoint);
      for (const Shard& shard : memory.shards) reader.read(shard);
    });
    drop_from_cache(checkpoint);
    json["verify_s"] = seconds_of([&] { json["damage"] = find_damage(checkpoint).size(); });
    json["open_8b_s"] = seconds_to_open_8b(folder / "large");
    fmt::print("{}\n", json.dump());
  } catch (const std::exception& error) {
    environment.fail(error);
  }
  return 0;
}
