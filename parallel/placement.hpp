// Placement: which layers each stage, or each chunk of a stage, holds. A pure function of layer counts, stage
// counts and costs, so that every rank computes the same one and plans can be printed without starting
// anything. Encoder stages come first; a RedLLM with encoder_stages = 0 has everything on its one stage. The
// tied embedding is held by up to three stages (encoder input, decoder input, head); the head's stage owns
// it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "parallel/schedule.hpp"

namespace red::parallel {

/// What there is to place.
struct LayerCounts {
  bool has_encoder = false;
  int64_t encoder_layers = 0;
  int64_t decoder_layers = 0;
};

/// Cost of each part in any one unit (FLOPs, seconds), forward and backward together or forward alone.
struct LayerCosts {
  double encoder_layer = 1.0;
  double decoder_layer = 1.0;  ///< cross-attention included
  double encoder_embedding = 0.0;
  double decoder_embedding = 0.0;
  double head = 0.0;  ///< final norm, logits and loss
};

/// The user's own split: layers of each virtual stage in order; empty: placement chooses.
struct LayerSplit {
  std::vector<int64_t> encoder = {};  ///< key parallel.encoder_split
  std::vector<int64_t> decoder = {};  ///< key parallel.decoder_split
};

/// Of a virtual stage, that is of a stage where there is one chunk on each.
struct StagePlacement {
  int stage = 0;
  int chunk = 0;
  int64_t encoder_begin = 0, encoder_end = 0;  ///< encoder layers [begin, end)
  int64_t decoder_begin = 0, decoder_end = 0;  ///< decoder layers [begin, end)
  bool has_encoder_embedding = false;
  bool has_encoder_final_norm = false;  ///< makes the encoder's output, the memory of cross-attention
  bool has_decoder_embedding = false;
  bool has_head = false;  ///< decoder's final norm, logits and loss
  double cost = 0.0;      ///< of this virtual stage, in the unit of LayerCosts

  int64_t encoder_layers() const { return encoder_end - encoder_begin; }
  int64_t decoder_layers() const { return decoder_end - decoder_begin; }
  bool has_encoder_part() const { return encoder_layers() > 0; }
  bool has_decoder_part() const { return decoder_layers() > 0; }
  /// A copy of the tied embedding lives here.
  bool holds_embedding() const { return has_encoder_embedding || has_decoder_embedding || has_head; }
  /// This copy is the one that is updated, counted in norms and saved.
  bool owns_embedding() const { return has_head; }
};

struct Placement {
  std::vector<StagePlacement> stages;  ///< virtual stages, in the order of PipelineShape
  std::vector<int> embedding_holders;  ///< stages, ascending; the owner is the last
  int embedding_owner = 0;

  /// Those on one stage.
  std::vector<StagePlacement> chunks_of(int stage) const;
  /// Cost of all its chunks.
  double cost_of(int stage) const;
  /// Cost of the heaviest stage over the mean, 1 when all are equal.
  double imbalance() const;
};

/// Splits each stack into contiguous runs of at least one layer a virtual stage so that its heaviest one is
/// as light as can be; of equal splits, later stages get the larger part, because earlier ones hold more
/// micro-batches in flight. Throws ConfigError when a stack has fewer layers than virtual stages, when the
/// stages do not fit the kind of model, or when the user's split does not add up (with one that does).
Placement place_layers(const LayerCounts& layers, const PipelineShape& shape, const LayerCosts& costs = {},
                       const LayerSplit& split = {});
inline Placement place_layers(const LayerCounts& layers, int encoder_stages, int decoder_stages,
                              const LayerCosts& costs = {}, const LayerSplit& split = {}) {
  return place_layers(layers, {.encoder_stages = encoder_stages, .decoder_stages = decoder_stages}, costs,
                      split);
}

/// Whether any of a stage's chunks holds a copy of the tied embedding, or the one that counts.
bool hold_embedding(const std::vector<StagePlacement>& chunks);
bool own_embedding(const std::vector<StagePlacement>& chunks);

/// "stage 1: decoder layers 0-3, embedding, head"
std::string to_string(const StagePlacement& stage);

}  // namespace red::parallel
