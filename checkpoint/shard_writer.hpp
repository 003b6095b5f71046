// One writer's file. HDF5 makes the metadata and early-allocated contiguous datasets and is closed again; the
// bulk bytes then go by our own system calls to where the datasets lie. That way a full disk is an error of
// a call we made, never a truncated file that HDF5 closed without complaint.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>

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

/// Writes a new file with every non-empty region and makes it durable; returns its size. Regions must be
/// checked (check_shard) and differ. `between_chunks` is called every few megabytes. Makes no MPI call.
/// Throws IoError with path, errno or HDF5's error stack; whatever lies at `path` then is not to be trusted.
uint64_t write_shard_file(const std::filesystem::path& path, const ShardIdentity& identity,
                          std::span<const Shard> shards, const std::function<void()>& between_chunks);

}  // namespace red::checkpoint
