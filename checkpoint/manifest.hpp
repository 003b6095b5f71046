// index.h5: what a checkpoint says of itself. Its datasets show every tensor whole: each is virtual, mapped
// onto the tiles in the shard files beside it. Metadata are attributes of the root; the shard files and their
// sizes are datasets of the group shard_files.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.hpp"
#include "checkpoint/h5.hpp"
#include "checkpoint/shard_layout.hpp"

namespace red::checkpoint {

inline constexpr const char* kIndexName = "index.h5";

struct Manifest {
  Metadata metadata;
  std::vector<LogicalTensor> tensors;  ///< by path
  std::vector<ShardFile> shard_files;  ///< by name
};

/// Writes a new index file and makes it durable. The tiles of every tensor must cover it exactly; files of
/// their writers must be listed. Throws IoError.
void write_index(const std::filesystem::path& path, const Metadata& metadata,
                 std::span<const TiledTensor> tensors, std::span<const ShardFile> shard_files);

/// Reads everything but the tiles. Throws DataError: no index, another format, a newer major version, an
/// entry that cannot be.
Manifest read_manifest(const h5::File& index, const std::string& index_name);

/// Where a tensor's tiles lie: Tile::writer counts in manifest.shard_files. Throws DataError unless they
/// cover it exactly, lie in listed files and have the names and shapes that tile_name() gives.
TiledTensor read_tiles(const h5::File& index, const std::string& index_name, const Manifest& manifest,
                       const LogicalTensor& tensor);

}  // namespace red::checkpoint
