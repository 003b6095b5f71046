// The stages of a save as plain functions, for those who run them one after another (save.cpp) or beside
// training (background_saver.cpp).
#pragma once

#include <filesystem>
#include <functional>
#include <span>

#include "checkpoint/checkpoint.hpp"
#include "checkpoint/exchange.hpp"

namespace red::checkpoint {

/// Writes this rank's shard file into the folder; a rank that holds nothing writes none, and its record is
/// empty. Makes no MPI call. Throws IoError, and whatever between_chunks throws.
ShardRecord write_own_shard(const std::filesystem::path& partial, const ShardIdentity& identity,
                            std::span<const Shard> shards, const std::function<void()>& between_chunks,
                            const WriteOptions& options);

/// On rank 0, when all shards are written: index, final name, `latest`; then deletes what the retention lets
/// go, of which no failure is reported but in the log. Makes no MPI call. Throws IoError.
void publish_all(const std::filesystem::path& checkpoints_dir, const Metadata& metadata, AllTiles tiles,
                 std::span<const ShardRecord> records, const Retention& retention);

}  // namespace red::checkpoint
