// Model FLOPs: what a model's matrix products cost by the formula of docs/flops.md, whatever the engine does
// to compute them. Work is what a sample's true lengths and masks ask for; it adds up over samples, and
// everything is linear in it. One multiply-add is two FLOPs.
#pragma once

#include <cstdint>

#include "data/sample.hpp"
#include "model/model_config.hpp"
#include "parallel/placement.hpp"

namespace red::model {

/// Which pairs of query and key count: those the masks leave visible, or all.
enum class AttentionCount { visible, full };

struct Work {
  int64_t encoder_tokens = 0;
  int64_t decoder_tokens = 0;
  int64_t encoder_pairs = 0;  ///< (query, key) of encoder self-attention, per layer and head
  int64_t decoder_pairs = 0;  ///< of decoder self-attention
  int64_t cross_pairs = 0;    ///< of cross-attention

  Work& operator+=(const Work& other);
  bool operator==(const Work&) const = default;
};

/// Of one sample without a document mask. `prefix` decoder tokens see each other (BiAttn).
Work work_of(int64_t encoder_length, int64_t decoder_length, int64_t prefix = 0,
             AttentionCount count = AttentionCount::visible);

/// Of all samples of a micro-batch, with its prefixes and document masks.
Work work_of(const data::MicroBatch& batch, AttentionCount count = AttentionCount::visible);

/// FLOPs of one forward pass, by part.
struct Flops {
  double encoder_layers = 0.0;  ///< all of them
  double decoder_layers = 0.0;  ///< all of them, cross-attention included
  double head = 0.0;            ///< logits of every decoder token

  double total() const { return encoder_layers + decoder_layers + head; }
};

Flops forward_flops(const ModelConfig& config, const Work& work);

/// Forward and backward: each product of the forward pass has two in the backward pass.
inline double training_flops(const ModelConfig& config, const Work& work) {
  return 3.0 * forward_flops(config, work).total();
}

/// Costs for place_layers: forward FLOPs of each part for this work. An embedding lookup has no product and
/// costs 0.
parallel::LayerCosts layer_costs(const ModelConfig& config, const Work& work);

}  // namespace red::model
