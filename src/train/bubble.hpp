// The pipeline's bubble: the share of their time in which its stages wait, as modelled before a run and as
// measured in one.
#pragma once

#include <optional>

#include "train/engine.hpp"

namespace red::train {

/// By the simulator: costs are the modelled FLOPs, messages are free.
double modelled_bubble(const EngineOptions& options, const parallel::Layout& layout);

struct Bubble {
  double measured = 0.0;   ///< 1 - compute / (stages x the longest stage's time from its start to its end)
  double simulated = 0.0;  ///< the simulator's, with the measured times of each chunk and free messages
};

/// Of the engine's last training step, which had the most micro-batches it was made for. Collective; the same
/// on every rank. Ranks of one stage count by their mean. Nothing on a GPU: there the executor only knows how
/// long it took to ask for work.
std::optional<Bubble> bubble_of_last_step(const Engine& engine);

}  // namespace red::train
