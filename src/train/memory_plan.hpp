// The memory of every rank of a layout, before there is any rank: stages, parameters, shards and optimizer
// are made of shapes alone (Memory::counted) by the very code that allocates them later, so plan and arenas
// cannot drift apart. A pure function; neither MPI nor the memory itself is needed.
#pragma once

#include <vector>

#include "parallel/layout.hpp"
#include "train/engine_options.hpp"
#include "train/memory_use.hpp"

namespace red::train {

struct RankPlan {
  parallel::Coordinates at;
  MemoryUse memory;
  int64_t parameters = 0;      ///< elements that the rank holds
  std::size_t logits = 0;      ///< bytes of one chunk's logits, within memory.temporaries
  std::size_t checkpoint = 0;  ///< bytes of tensors that the rank writes into a checkpoint
};

struct MemoryPlan {
  parallel::Layout layout;
  parallel::Placement placement;
  std::vector<int> slots;       ///< micro-batches in flight, by virtual stage
  std::vector<RankPlan> ranks;  ///< in the order of ranks

  /// Of all ranks, or of one stage's, that with most memory; the first of equals.
  const RankPlan& largest() const;
  const RankPlan& largest_of_stage(int stage) const;
  std::size_t total() const;             ///< of all ranks
  std::size_t checkpoint_bytes() const;  ///< tensors of a whole checkpoint, without what HDF5 adds
};

/// What Engine::memory() will be on every rank with so many threads, to the byte. The layout must be legal.
MemoryPlan plan_memory(const EngineOptions& options, const parallel::Layout& layout, int num_threads);

/// "rank 3: 1.2 GiB: parameters 400.0 MiB, ...": the largest rank and its parts, one line.
std::string short_form(const MemoryPlan& plan);

/// "512 B", "1.5 KiB", "340.2 MiB", "12.3 GiB".
std::string bytes_text(std::size_t num_bytes);

}  // namespace red::train
