// A layer: self-attention, in a RedLLM's decoder cross-attention, and a feed-forward block; each a residual
// branch. Shapes: t own tokens of the layer's side, S encoder tokens, d model width.
#pragma once

#include <optional>

#include "model/attention_block.hpp"
#include "model/ffn_block.hpp"
#include "model/recompute.hpp"

namespace red::model {

enum class LayerKind { encoder, decoder, decoder_with_memory };

/// The gradient of the residual stream on its way back: each block reads `now`, writes `next`, and they swap.
struct StreamGradient {
  Tensor now, next;  ///< (t, d)
};

/// What a layer's passes work with, of one micro-batch.
struct LayerBatch {
  const DeviceBatch& batch;
  Tensor memory;          ///< (S, d) encoder output; decoder_with_memory only
  Tensor d_memory;        ///< (S, d) this tensor rank's part of its gradient, which cross-attention adds to
  LayerCache cache = {};  ///< empty: none
};

class Layer {
 public:
  struct Saved {
    AttentionBlock::Saved self, cross;
    FfnBlock::Saved ffn;
  };

  /// What backward_input leaves for a backward_weight that runs apart, beside what it leaves in Saved.
  struct Kept {
    Tensor self, cross;  ///< (T, d) gradients of the attention blocks' results, of all the side's tokens
    FfnBlock::Gradients ffn;
  };

  /// `prefix` is "encoder.layers.3." or the like.
  Layer(const ParameterStore& store, const ModelConfig& config, const TensorAxis& tensor,
        const DropoutConfig& dropout, const std::string& prefix, LayerKind kind);

  /// What forward leaves for the backward pass of one micro-batch. What is to be made again lies in
  /// `recomputed` instead, which all layers of a kind share.
  Saved allocate_saved(Arena& arena, const BatchShape& shape, Recompute recompute,
                       const Saved& recomputed) const;
  Saved allocate_recomputed(Arena& arena, const BatchShape& shape, Recompute recompute) const;
  Kept allocate_kept(Arena& arena, const BatchShape& shape) const;
  /// Takes from `arena` what the backward passes take at most at a time.
  void reserve_backward(Arena& arena, const BatchShape& shape) const;

  /// Without `keep`, each block works in place on the stream and nothing can be taken back.
  void forward(const PassContext& context, const LayerBatch& batch, Saved& saved, ForwardScratch& scratch,
               ResidualStream& stream, bool keep) const;
  /// Makes again what allocate_saved() has left out.
  void recompute(const PassContext& context, const LayerBatch& batch, Saved& saved, Recompute recompute,
                 ForwardScratch& scratch) const;
  /// Both backward passes, block by block; temporaries come from `work`.
  void backward(const PassContext& context, const LayerBatch& batch, Saved& saved, Arena& work,
                StreamGradient& gradient) const;
  /// The same in two calls, with others between them.
  void backward_input(const PassContext& context, const LayerBatch& batch, Saved& saved, const Kept& kept,
                      Arena& work, StreamGradient& gradient) const;
  void backward_weight(const PassContext& context, const LayerBatch& batch, const Saved& saved,
                       const Kept& kept, Arena& work) const;

  const FfnBlock& ffn() const { return ffn_; }
  const AttentionBlock& self_attention() const { return self_; }
  const std::optional<AttentionBlock>& cross_attention() const { return cross_; }

 private:
  int64_t tokens(const BatchShape& shape) const;
  const DeviceSequences& side(const LayerBatch& batch) const;

  LayerKind kind_;
  AttentionBlock self_;
  std::optional<AttentionBlock> cross_;
  FfnBlock ffn_;
};

}  // namespace red::model
