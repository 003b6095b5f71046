// Writes, verifies and reads a checkpoint with the tensors of RedLLM 8B at a part of its width, each cut by
// rows among the ranks, and opens the index of one by 256 writers; prints seconds as JSON. On any number of
// ranks: checkpoint_speed FOLDER DIVISOR-OF-WIDTHS
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <vector>

#include "base/error.hpp"
#include "checkpoint/choose.hpp"
#include "checkpoint/manifest.hpp"
#include "model/parameter.hpp"
#include "parallel/mpi_environment.hpp"

namespace {

using namespace red;
using namespace red::checkpoint;

/// Between two instants at which all ranks are ready.
template <class F>
double seconds_of(parallel::Communicator& world, const F& work) {
  const auto all_are_ready = [&world] {
    parallel::Request request = world.barrier();
    world.wait(request, "checkpoint_speed");
    return std::chrono::steady_clock::now();
  };
  const auto begin = all_are_ready();
  work();
  return std::chrono::duration<double>(all_are_ready() - begin).count();
}

/// Parameters and second moments.
std::vector<LogicalTensor> tensors_of_8b(int64_t divisor) {
  model::ModelConfig config;
  config.d_model = 4096 / divisor;
  config.d_ff = 16384 / divisor;
  config.num_heads = 32 / divisor;
  config.encoder_layers = config.decoder_layers = 14;
  std::vector<LogicalTensor> tensors;
  for (const char* kind : {"parameters", "optimizer/v"})
    for (const model::ParameterSpec& spec : model::parameter_specs(config))
      tensors.push_back(
          {fmt::format("{}/{}", kind, spec.name), spec.rows, spec.is_gain() ? 0 : spec.cols, DType::fp32});
  return tensors;
}

/// What was written is read from the disk, not from the page cache; the kernel drops only what is on the
/// disk.
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

OwnTensors memory_of(const std::vector<LogicalTensor>& tensors, int64_t rank, int64_t num_ranks) {
  OwnTensors memory;
  for (const LogicalTensor& tensor : tensors) {
    const int64_t cols = std::max<int64_t>(1, tensor.cols);
    const int64_t begin = tensor.rows * rank / num_ranks, end = tensor.rows * (rank + 1) / num_ranks;
    auto& values = memory.values.emplace_back(static_cast<std::size_t>((end - begin) * cols));
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i % 8191);
    memory.shards.push_back({tensor, begin, end - begin, 0, cols, values.data(), cols});
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
  const auto begin = std::chrono::steady_clock::now();
  const Reader reader(folder);
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

}  // namespace

int main(int argc, char** argv) {
  const int64_t divisor = argc == 3 ? std::atoll(argv[2]) : 0;
  if (divisor < 1 || 32 % divisor != 0) {
    fmt::print(stderr, "usage: checkpoint_speed FOLDER DIVISOR-OF-WIDTHS (of 32)\n");
    return 2;
  }
  const std::filesystem::path folder = argv[1], checkpoint = folder / "step-00000001";
  parallel::MpiEnvironment environment;
  try {
    parallel::Communicator& world = environment.world();
    const std::vector<LogicalTensor> tensors = tensors_of_8b(divisor);
    OwnTensors memory = memory_of(tensors, world.rank(), world.size());
    Metadata metadata;
    metadata.step = 1;
    nlohmann::ordered_json json;
    int64_t num_elements = 0;
    for (const LogicalTensor& tensor : tensors)
      num_elements += tensor.rows * std::max<int64_t>(1, tensor.cols);
    json["num_bytes"] = num_elements * static_cast<int64_t>(sizeof(float));
    json["write_s"] = seconds_of(world, [&] { save(folder, metadata, memory.shards, world); });
    drop_from_cache(checkpoint);
    json["read_s"] = seconds_of(world, [&] {
      const Reader reader(checkpoint);
      for (const Shard& shard : memory.shards) reader.read(shard);
    });
    drop_from_cache(checkpoint);
    json["verify_s"] = seconds_of(world, [&] {
      if (const std::string damage = find_damage_together(checkpoint, world); !damage.empty())
        throw DataError("{}", damage);
    });
    if (world.rank() == 0) {
      json["open_8b_s"] = seconds_to_open_8b(folder / "large");
      fmt::print("{}\n", json.dump());
    }
  } catch (...) {
    environment.fail(std::current_exception());
  }
  return 0;
}
