// Shards in host memory of their own, so that training may change the originals while they are written.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <vector>

#include "checkpoint/shard.hpp"
#include "device/stream.hpp"

namespace red::checkpoint {

struct ShardCopy {
  std::vector<Shard> shards;           ///< rows without gaps, in `memory`
  std::shared_ptr<HostBuffer> memory;  ///< shared with whoever still writes
};

/// Bytes that a copy of these shards takes.
std::size_t copy_bytes(std::span<const Shard> shards);

/// Copies from device memory in stream order and waits for it. `memory` has at least copy_bytes().
ShardCopy copy_shards(Stream& stream, std::span<const Shard> shards, std::shared_ptr<HostBuffer> memory);

}  // namespace red::checkpoint
