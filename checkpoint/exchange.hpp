// What the ranks of a save tell each other: whether a stage succeeded, which tiles they hold, how large their
// files are. Only non-blocking operations of the communicator; all of these are collective.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/checkpoint.hpp"
#include "checkpoint/shard_layout.hpp"
#include "checkpoint/shard_writer.hpp"
#include "parallel/communicator.hpp"

namespace red::checkpoint {

/// Runs `work` on every rank, then agrees: when it threw on any rank, every rank throws the same error, that
/// of the lowest such rank, with rank and host in front. LogicErrors stay LogicErrors, everything else
/// becomes an IoError. `what` names the stage. CommunicationErrors pass through: there is nobody left to
/// agree with.
void run_agreed(parallel::Communicator& world, std::string_view what, const std::function<void()>& work);

/// One number of each rank, by rank.
std::vector<uint64_t> gather_numbers(parallel::Communicator& world, uint64_t mine);

/// All ranks' texts one after another, on every rank; of equal lines one is kept.
std::string join_lines(parallel::Communicator& world, const std::string& mine);
/// Rank 0's text, on every rank.
std::string text_of_first_rank(parallel::Communicator& world, std::string text);

/// What a checkpoint is made of: all ranks' tiles by tensor, tensors by path; and, by rank, where each of its
/// tiles went, in the order in which it named them.
struct AllTiles {
  struct Place {
    std::size_t tensor = 0, tile = 0;
  };
  std::vector<TiledTensor> tensors;
  std::vector<std::vector<Place>> places;
};

/// All ranks' tiles on rank 0; nothing elsewhere. Agrees on a LogicError when ranks
/// name different steps or cursors, when they disagree about a tensor's shape, or when tiles do not cover a
/// tensor exactly.
AllTiles gather_tiles(parallel::Communicator& world, const Metadata& metadata,
                      std::span<const Shard> local_shards);

/// What each rank wrote, by rank, on rank 0; empty elsewhere.
std::vector<ShardRecord> gather_records(parallel::Communicator& world, const ShardRecord& mine);
/// Puts the checksums of all ranks' records into their tiles.
void set_checksums(AllTiles& tiles, std::span<const ShardRecord> records);

}  // namespace red::checkpoint
