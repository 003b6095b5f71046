// What the ranks of a save tell each other: whether a stage succeeded, which tiles they hold, how large their
// files are. Only non-blocking operations of the communicator; all of these are collective.
#pragma once

#include <cstdint>
#include <functional>
#include <string_view>
#include <vector>

#include "checkpoint/checkpoint.hpp"
#include "checkpoint/shard_layout.hpp"
#include "parallel/communicator.hpp"

namespace red::checkpoint {

/// Runs `work` on every rank, then agrees: when it threw on any rank, every rank throws the same error, that
/// of the lowest such rank, with rank and host in front. LogicErrors stay LogicErrors, everything else
/// becomes an IoError. `what` names the stage. CommunicationErrors pass through: there is nobody left to
/// agree with.
void run_agreed(parallel::Communicator& world, std::string_view what, const std::function<void()>& work);

/// One number of each rank, by rank.
std::vector<uint64_t> gather_numbers(parallel::Communicator& world, uint64_t mine);

/// All ranks' tiles by tensor, tensors by path, on rank 0; empty elsewhere. Agrees on a LogicError when ranks
/// name different steps or cursors, when they disagree about a tensor's shape, or when tiles do not cover a
/// tensor exactly.
std::vector<TiledTensor> gather_tiles(parallel::Communicator& world, const Metadata& metadata,
                                      std::span<const Shard> local_shards);

}  // namespace red::checkpoint
