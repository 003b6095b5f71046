// CRC-32C of what lies in files, read in pieces: of a whole file, of a tile, and of a shard file's structure,
// which is every byte outside of its tiles. Between them they cover each byte of a checkpoint.
#pragma once

#include <cstdint>
#include <vector>

#include "checkpoint/posix_file.hpp"

namespace red::checkpoint {

/// Where the bytes of a tile lie in its file.
struct Extent {
  uint64_t offset = 0;
  uint64_t num_bytes = 0;
};

/// Of the file from its beginning to its end. These throw IoError, and DataError when the file ends too
/// early.
uint32_t file_crc32c(const PosixFile& file);
/// Of num_bytes from offset on; `crc` is that of what comes before.
uint32_t extent_crc32c(const PosixFile& file, const Extent& extent, uint32_t crc = 0);
/// Of all bytes below num_bytes that lie in none of the extents, in their order. Extents may come in any
/// order.
uint32_t structure_crc32c(const PosixFile& file, uint64_t num_bytes, std::vector<Extent> extents);

}  // namespace red::checkpoint
