#include "checkpoint/save_stages.hpp"

#include "base/error.hpp"
#include "checkpoint/folders.hpp"
#include "checkpoint/manifest.hpp"
#include "checkpoint/posix_file.hpp"

namespace red::checkpoint {
namespace {

bool holds_anything(std::span<const Shard> shards) {
  for (const Shard& shard : shards) {
    if (!region_of(shard).empty()) return true;
  }
  return false;
}

/// Files of the ranks that wrote one.
std::vector<ShardFile> list_files(std::span<const ShardRecord> records) {
  std::vector<ShardFile> files;
  for (std::size_t rank = 0; rank < records.size(); ++rank) {
    const ShardRecord& record = records[rank];
    if (record.num_bytes > 0)
      files.push_back({shard_file_name(static_cast<int>(rank)), record.num_bytes, record.structure_crc32c});
  }
  return files;
}

/// Older checkpoints go only when the index of this one is on the disk as it was written.
void read_index_back(const std::filesystem::path& partial) {
  PosixFile::open(partial / kIndexName).forget_cached();
  try {
    Manifest read;
    static_cast<void>(open_index(partial, read));
  } catch (const DataError& error) {
    throw IoError("the index does not hold what was written: {}", error.what());
  }
}

}  // namespace

ShardRecord write_own_shard(const std::filesystem::path& partial, const ShardIdentity& identity,
                            std::span<const Shard> shards, const std::function<void()>& between_chunks,
                            const WriteOptions& options) {
  if (!holds_anything(shards)) return {};
  return write_shard_file(partial / shard_file_name(identity.writer), identity, shards, between_chunks,
                          options);
}

void publish_all(const std::filesystem::path& checkpoints_dir, const Metadata& metadata, AllTiles tiles,
                 std::span<const ShardRecord> records, const Retention& retention) {
  set_checksums(tiles, records);
  const std::filesystem::path partial = partial_folder(checkpoints_dir, metadata.step);
  write_index(partial / kIndexName, metadata, tiles.tensors, list_files(records));
  sync_folder(partial);
  if (retention.deletes()) read_index_back(partial);
  // Where `latest` still names an older one, that one must stay.
  if (publish(checkpoints_dir, metadata.step)) delete_old(checkpoints_dir, retention, metadata.step);
}

}  // namespace red::checkpoint
