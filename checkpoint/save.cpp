// save(): the stages of a save in order; after each, all ranks agree that it succeeded everywhere.
#include "checkpoint/checkpoint.hpp"
#include "checkpoint/folders.hpp"
#include "checkpoint/save_stages.hpp"

namespace red::checkpoint {
namespace {

void write_and_publish(const std::filesystem::path& checkpoints_dir, const Metadata& metadata,
                       std::span<const Shard> local_shards, parallel::Communicator& world,
                       const SaveOptions& options) {
  const AllTiles tiles = gather_tiles(world, metadata, local_shards);
  const bool first = world.rank() == 0;
  run_agreed(world, "checkpoint: preparing the folder", [&] {
    if (first) prepare_partial(checkpoints_dir, metadata.step);
  });
  ShardRecord record;
  run_agreed(world, "checkpoint: writing a shard", [&] {
    const ShardIdentity identity{metadata.step, metadata.sample_cursor, world.rank(), world.size()};
    const WriteOptions write{options.fetch, options.retention.deletes()};
    record = write_own_shard(
        partial_folder(checkpoints_dir, metadata.step), identity, local_shards, [&world] { world.poll(); },
        write);
  });
  const std::vector<ShardRecord> records = gather_records(world, record);
  run_agreed(world, "checkpoint: publishing", [&] {
    if (first) publish_all(checkpoints_dir, metadata, tiles, records, options.retention);
  });
}

}  // namespace

void save(const std::filesystem::path& checkpoints_dir, const Metadata& metadata,
          std::span<const Shard> local_shards, parallel::Communicator& world, const SaveOptions& options) {
  try {
    write_and_publish(checkpoints_dir, metadata, local_shards, world, options);
  } catch (const IoError&) {
    // On every rank: nobody writes any more.
    if (world.rank() == 0) remove_partial(checkpoints_dir, metadata.step);
    throw;
  }
}

}  // namespace red::checkpoint
