// index.h5: what a checkpoint says of itself. Its datasets show every tensor whole: each is virtual, mapped
// onto the tiles in the shard files beside it. Metadata are attributes of the root; the shard files, their
// sizes and all checksums are datasets of the group shard_files.
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
inline constexpr const char* kIndexChecksumName = "index.crc32c";

// Whatever reads throws IoError where the file cannot be read, which says nothing about what is in it.

struct Manifest {
  int64_t format_minor = kFormatMinor;
  Metadata metadata;
  std::vector<LogicalTensor> tensors;  ///< by path
  std::vector<ShardFile> shard_files;  ///< by name

  bool has_checksums() const { return format_minor >= 1; }
};

/// Writes a new index file and its checksum beside it, and makes both durable. The tiles of every tensor must
/// cover it exactly; files of their writers must be listed. Throws IoError.
void write_index(const std::filesystem::path& path, const Metadata& metadata,
                 std::span<const TiledTensor> tensors, std::span<const ShardFile> shard_files);

/// Where the checksums of a tensor's tiles are listed: "shard_files/crc32c/parameters/NAME".
std::string tile_checksums_path(const LogicalTensor& tensor);

/// Writes the checksum of the index that lies in a folder.
void write_index_checksum(const std::filesystem::path& folder);
/// Throws DataError when the index is not the one whose checksum lies beside it; a format before checksums
/// has none, which read_manifest() sees.
void check_index_checksum(const std::filesystem::path& folder);

/// The folder, if it is one and has an index; throws DataError otherwise.
std::filesystem::path checked_folder(const std::filesystem::path& folder);

/// Opens the index of a folder whose checksum it has, and reads it. Throws DataError.
h5::File open_index(const std::filesystem::path& folder, Manifest& manifest);

/// Reads everything but the tiles. Throws DataError: no index, another format, a newer major version, an
/// entry that cannot be.
Manifest read_manifest(const h5::File& index, const std::string& index_name);

/// Where a tensor's tiles lie: Tile::writer counts in manifest.shard_files. Throws DataError unless they
/// cover it exactly, lie in listed files and have the names and shapes that tile_name() gives.
TiledTensor read_tiles(const h5::File& index, const std::string& index_name, const Manifest& manifest,
                       const LogicalTensor& tensor);

}  // namespace red::checkpoint
