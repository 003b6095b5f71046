// save(): the stages of a save in order; after each, all ranks agree that it succeeded everywhere.
#include <functional>

#include "checkpoint/checkpoint.hpp"
#include "checkpoint/exchange.hpp"
#include "checkpoint/folders.hpp"
#include "checkpoint/manifest.hpp"
#include "checkpoint/posix_file.hpp"
#include "checkpoint/shard_writer.hpp"

namespace red::checkpoint {
namespace {

bool holds_anything(std::span<const Shard> shards) {
  for (const Shard& shard : shards) {
    if (!region_of(shard).empty()) return true;
  }
  return false;
}

/// Files of the ranks that wrote one, given everyone's size.
std::vector<ShardFile> list_files(const std::vector<uint64_t>& num_bytes) {
  std::vector<ShardFile> files;
  for (std::size_t rank = 0; rank < num_bytes.size(); ++rank) {
    if (num_bytes[rank] > 0) files.push_back({shard_file_name(static_cast<int>(rank)), num_bytes[rank]});
  }
  return files;
}

}  // namespace

void save(const std::filesystem::path& checkpoints_dir, const Metadata& metadata,
          std::span<const Shard> local_shards, parallel::Communicator& world) {
  const std::vector<TiledTensor> tensors = gather_tiles(world, metadata, local_shards);
  const std::filesystem::path partial = partial_folder(checkpoints_dir, metadata.step);
  const bool first = world.rank() == 0;

  run_agreed(world, "checkpoint: preparing the folder", [&] {
    if (first) prepare_partial(checkpoints_dir, metadata.step);
  });
  uint64_t num_bytes = 0;
  run_agreed(world, "checkpoint: writing a shard", [&] {
    if (!holds_anything(local_shards)) return;
    const ShardIdentity identity{metadata.step, metadata.sample_cursor, world.rank(), world.size()};
    num_bytes = write_shard_file(partial / shard_file_name(world.rank()), identity, local_shards,
                                 [&world] { world.poll(); });
  });
  const std::vector<ShardFile> files = list_files(gather_numbers(world, num_bytes));
  run_agreed(world, "checkpoint: publishing", [&] {
    if (!first) return;
    write_index(partial / kIndexName, metadata, tensors, files);
    sync_folder(partial);
    publish(checkpoints_dir, metadata.step);
  });
}

}  // namespace red::checkpoint
