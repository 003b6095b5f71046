#include "checkpoint/shard_copy.hpp"

#include <utility>

#include "base/check.hpp"

namespace red::checkpoint {
namespace {

std::size_t row_bytes(const Shard& shard) {
  return static_cast<std::size_t>(shard.num_cols) * size_of(shard.tensor.dtype);
}

std::size_t bytes_of(const Shard& shard) {
  return Arena::rounded(static_cast<std::size_t>(shard.num_rows) * row_bytes(shard));
}

void copy_rows(Stream& stream, const Shard& shard, std::byte* to) {
  const auto* from = static_cast<const std::byte*>(shard.data);
  if (shard.row_stride == shard.num_cols)
    return copy_to_host(stream, to, from, static_cast<std::size_t>(shard.num_rows) * row_bytes(shard));
  const std::size_t stride = static_cast<std::size_t>(shard.row_stride) * size_of(shard.tensor.dtype);
  for (std::size_t row = 0; row < static_cast<std::size_t>(shard.num_rows); ++row)
    copy_to_host(stream, to + row * row_bytes(shard), from + row * stride, row_bytes(shard));
}

}  // namespace

std::size_t copy_bytes(std::span<const Shard> shards) {
  std::size_t total = 0;
  for (const Shard& shard : shards) total += bytes_of(shard);
  return total;
}

ShardCopy copy_shards(Stream& stream, std::span<const Shard> shards, std::shared_ptr<HostBuffer> memory) {
  RED_CHECK(memory && copy_bytes(shards) <= memory->num_bytes(), "a copy of {} bytes", copy_bytes(shards));
  ShardCopy copy{{shards.begin(), shards.end()}, std::move(memory)};
  std::byte* next = copy.memory->data();
  for (Shard& shard : copy.shards) {
    copy_rows(stream, shard, next);
    std::byte* const data = next;
    next += bytes_of(shard);
    shard.data = data;
    shard.row_stride = shard.num_cols;
  }
  stream.synchronize();
  return copy;
}

}  // namespace red::checkpoint
