#include "model/layer.hpp"

#include <utility>

namespace red::model {
namespace {

BatchShape shape_of(const DeviceBatch& batch) {
  return {batch.num_sequences, batch.encoder.num_tokens, batch.decoder.num_tokens};
}

}  // namespace

Layer::Layer(const ParameterStore& store, const ModelConfig& config, const TensorAxis& tensor,
             const DropoutConfig& dropout, const std::string& prefix, LayerKind kind)
    : kind_(kind),
      self_(store, config, tensor, dropout, prefix,
            kind == LayerKind::encoder ? AttentionKind::encoder_self : AttentionKind::decoder_self),
      ffn_(store, tensor, dropout, prefix) {
  if (kind == LayerKind::decoder_with_memory)
    cross_.emplace(store, config, tensor, dropout, prefix, AttentionKind::cross);
}

int64_t Layer::tokens(const BatchShape& shape) const {
  return kind_ == LayerKind::encoder ? shape.encoder_tokens : shape.decoder_tokens;
}

const DeviceSequences& Layer::side(const LayerBatch& batch) const {
  return kind_ == LayerKind::encoder ? batch.batch.encoder : batch.batch.decoder;
}

Layer::Saved Layer::allocate_saved(Arena& arena, const BatchShape& shape, Recompute recompute,
                                   const Saved& recomputed) const {
  Saved saved = recomputed;
  if (recompute == Recompute::full) {
    saved.self.x = self_.allocate_input(arena, shape);
    return saved;
  }
  saved.self = self_.allocate_saved(arena, shape);
  if (cross_) saved.cross = cross_->allocate_saved(arena, shape);
  saved.ffn = recompute == Recompute::none
                  ? ffn_.allocate_saved(arena, tokens(shape))
                  : ffn_.allocate_saved(arena, tokens(shape), recomputed.ffn.gate_up);
  return saved;
}

Layer::Saved Layer::allocate_recomputed(Arena& arena, const BatchShape& shape, Recompute recompute) const {
  if (recompute == Recompute::full) return allocate_saved(arena, shape, Recompute::none, {});
  Saved recomputed;
  if (recompute == Recompute::selective) recomputed.ffn.gate_up = ffn_.allocate_gate_up(arena, tokens(shape));
  return recomputed;
}

Layer::Kept Layer::allocate_kept(Arena& arena, const BatchShape& shape) const {
  Kept kept;
  kept.self = self_.allocate_kept(arena, shape);
  if (cross_) kept.cross = cross_->allocate_kept(arena, shape);
  kept.ffn = ffn_.allocate_gradients(arena, tokens(shape), true);
  return kept;
}

void Layer::reserve_backward(Arena& arena, const BatchShape& shape) const {
  const auto reserve = [&](const AttentionBlock& block) {
    const ArenaScope scope(arena);
    block.allocate_gradients(arena, shape, {});
    block.reserve_backward(arena, shape);
  };
  reserve(self_);
  if (cross_) reserve(*cross_);
  const ArenaScope scope(arena);
  ffn_.allocate_gradients(arena, tokens(shape), false);
  ffn_.reserve_backward(arena, tokens(shape));
}

void Layer::forward(const PassContext& context, const LayerBatch& batch, Saved& saved,
                    ForwardScratch& scratch, ResidualStream& stream, bool keep) const {
  const auto place_input = [&](Tensor& x) {
    if (!keep) x = stream.x;  // the sum of stream and branch replaces the stream
  };
  const LayerCache& cache = batch.cache;
  place_input(saved.self.x);
  self_.forward(context, batch.batch, {}, saved.self, scratch, stream, cache.self, cache.read);
  if (cross_) {
    place_input(saved.cross.x);
    cross_->forward(context, batch.batch, batch.memory, saved.cross, scratch, stream, cache.cross,
                    cache.read);
  }
  place_input(saved.ffn.x);
  ffn_.forward(context, side(batch), saved.ffn, scratch, stream);
}

void Layer::recompute(const PassContext& context, const LayerBatch& batch, Saved& saved, Recompute recompute,
                      ForwardScratch& scratch) const {
  if (recompute == Recompute::selective) ffn_.recompute_gate_up(context, saved.ffn, scratch);
  if (recompute != Recompute::full) return;
  ResidualStream stream{saved.self.x, {}};
  self_.forward(context, batch.batch, {}, saved.self, scratch, stream);
  if (cross_) cross_->forward(context, batch.batch, batch.memory, saved.cross, scratch, stream);
  ffn_.forward_saved(context, saved.ffn, scratch, stream);
}

void Layer::backward(const PassContext& context, const LayerBatch& batch, Saved& saved, Arena& work,
                     StreamGradient& gradient) const {
  const BatchShape shape = shape_of(batch.batch);
  {
    const ArenaScope scope(work);
    const FfnBlock::Gradients g = ffn_.allocate_gradients(work, tokens(shape), false);
    ffn_.backward_input(context, side(batch), saved.ffn, g, work, gradient.next, gradient.now);
    ffn_.backward_weight(context, saved.ffn, g, work, gradient.now);
    std::swap(gradient.now, gradient.next);
  }
  const auto attention = [&](const AttentionBlock& block, AttentionBlock::Saved& block_saved) {
    const ArenaScope scope(work);
    const AttentionBlock::Gradients g = block.allocate_gradients(work, shape, {});
    block.backward_input(context, batch.batch, batch.d_memory, block_saved, g, work, gradient.next,
                         gradient.now);
    block.backward_weight(context, batch.memory, block_saved, g, work, gradient.now);
    std::swap(gradient.now, gradient.next);
  };
  if (cross_) attention(*cross_, saved.cross);
  attention(self_, saved.self);
}

void Layer::backward_input(const PassContext& context, const LayerBatch& batch, Saved& saved,
                           const Kept& kept, Arena& work, StreamGradient& gradient) const {
  const BatchShape shape = shape_of(batch.batch);
  ffn_.backward_input(context, side(batch), saved.ffn, kept.ffn, work, gradient.next, gradient.now);
  std::swap(gradient.now, gradient.next);
  const auto attention = [&](const AttentionBlock& block, AttentionBlock::Saved& block_saved,
                             const Tensor& d_result) {
    const ArenaScope scope(work);
    const AttentionBlock::Gradients g = block.allocate_gradients(work, shape, d_result);
    block.backward_input(context, batch.batch, batch.d_memory, block_saved, g, work, gradient.next,
                         gradient.now);
    block.keep(context, block_saved, g);
    std::swap(gradient.now, gradient.next);
  };
  if (cross_) attention(*cross_, saved.cross, kept.cross);
  attention(self_, saved.self, kept.self);
}

void Layer::backward_weight(const PassContext& context, const LayerBatch& batch, const Saved& saved,
                            const Kept& kept, Arena& work) const {
  ffn_.backward_weight(context, saved.ffn, kept.ffn, work, {});
  const auto attention = [&](const AttentionBlock& block, const AttentionBlock::Saved& block_saved,
                             const Tensor& d_result) {
    block.backward_weight(context, batch.memory, block_saved, block.kept(block_saved, d_result), work, {});
  };
  if (cross_) attention(*cross_, saved.cross, kept.cross);
  attention(self_, saved.self, kept.self);
}

}  // namespace red::model
