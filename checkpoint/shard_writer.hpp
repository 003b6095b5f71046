// One writer's file. HDF5 makes the metadata and early-allocated contiguous datasets and is closed again; the
// bulk bytes then go by our own system calls to where the datasets lie. That way a full disk is an error of
// a call we made, never a truncated file that HDF5 closed without complaint. Each tile's checksum is stored
// beside it, as the attribute crc32c of its dataset.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <vector>

#include "checkpoint/shard.hpp"

namespace red::checkpoint {

/// Attributes of a shard file: which save it belongs to. Equal saves give equal bytes, so there is no
/// random number in it.
struct ShardIdentity {
  int64_t step = 0;
  uint64_t sample_cursor = 0;
  int writer = 0;
  int num_writers = 1;
};

/// What others have to know of a file that was written.
struct ShardRecord {
  uint64_t num_bytes = 0;
  uint32_t structure_crc32c = 0;      ///< of the bytes outside of tiles
  std::vector<uint32_t> tile_crc32c;  ///< of non-empty regions, in the order they were given
};

struct WriteOptions {
  /// Copies bytes to host memory from where Shard::data points, before it returns; empty: that is host
  /// memory.
  std::function<void(void* host, const void* from, std::size_t num_bytes)> fetch = {};
  /// Read it again from the disk, as far as the kernel lets us, and compare: whoever deletes older
  /// checkpoints wants to know.
  bool read_back = false;
};

/// Writes a new file with every non-empty region and makes it durable. Regions must be
/// checked (check_shard) and differ. `between_chunks` is called every few megabytes. Makes no MPI call.
/// Throws IoError with path, errno or HDF5's error stack; whatever lies at `path` then is not to be trusted.
ShardRecord write_shard_file(const std::filesystem::path& path, const ShardIdentity& identity,
                             std::span<const Shard> shards, const std::function<void()>& between_chunks,
                             const WriteOptions& options = {});

}  // namespace red::checkpoint
