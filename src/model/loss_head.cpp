#include "model/loss_head.hpp"

#include <algorithm>
#include <cmath>

#include "ops/cross_entropy.hpp"
#include "ops/matmul.hpp"
#include "ops/norm.hpp"

namespace red::model {

using ops::matmul;
using ops::Transpose;

LossHead::LossHead(const ParameterStore& store, const ModelConfig& config, const TensorAxis& tensor,
                   const DropoutConfig& dropout, int64_t chunk, float z_loss)
    : tensor_(tensor),
      gain_(store.weight("decoder.final_norm.gain")),
      embedding_(store.weight("embedding.weight")),
      first_column_(store.find("embedding.weight").region.row_begin),
      chunk_(chunk),
      z_loss_(z_loss),
      scale_(static_cast<float>(1.0 / std::sqrt(static_cast<double>(config.d_model)))),
      dropout_(dropout, "decoder.final_norm") {}

LossHead::Saved LossHead::allocate_saved(Arena& arena, int64_t tokens) const {
  const int64_t d_model = embedding_.value.cols;
  return {tensor_.allocate_local(arena, tokens, d_model, dtype()),
          tensor_.allocate_local(arena, tokens, 1, DType::fp32),
          tensor_.allocate_full(arena, tokens, d_model, dtype())};
}

LossHead::Chunk LossHead::allocate_chunk(Arena& arena, int64_t tokens) const {
  Chunk chunk;
  chunk.logits = arena.allocate(tokens, num_columns());
  chunk.partials = arena.allocate<double>(tensor_.size(), ops::kCrossEntropyPartialSize * tokens);
  return chunk;
}

void LossHead::reserve_logits(Arena& arena, int64_t tokens) const {
  const ArenaScope scope(arena);
  allocate_chunk(arena, std::min(chunk_, tokens));
}

void LossHead::normalise(const PassContext& context, const DeviceBatch& batch, Saved& saved,
                         const Tensor& normed, ResidualStream& stream) const {
  const Tensor own = tensor_.local(normed);
  begin_block(context, stream, saved.x, own, saved.inv_rms, gain_.value);
  saved.x = stream.x;
  dropout_.drop(context, tensor_, batch.decoder, own, own);
  tensor_.enter(normed);
}

void LossHead::forward(const PassContext& context, const DeviceBatch& batch, Saved& saved,
                       const Tensor& normed, Arena& work, ResidualStream& stream, const Tensor& sums,
                       const Tensor& log_probability, bool train) const {
  Stream& s = context.stream;
  normalise(context, batch, saved, normed, stream);
  const int64_t tokens = normed.rows;
  for (int64_t begin = 0; begin < tokens; begin += chunk_) {
    const int64_t n = std::min(chunk_, tokens - begin);
    const ArenaScope scope(work);
    const Chunk chunk = allocate_chunk(work, n);
    const Tensor y = normed.row_range(begin, n), d_logits = ops::logits_gradient(chunk.logits, dtype());
    logits(context, chunk.logits, y);
    const Tensor own_partials = chunk.partials.row_range(tensor_.at().rank, 1);
    const int32_t* targets = batch.targets + begin;
    const uint8_t* loss_mask = batch.loss_mask + begin;
    ops::cross_entropy_partials(s, own_partials, chunk.logits, first_column_, targets, loss_mask,
                                train ? ops::LogitsBecome::gradient : ops::LogitsBecome::nothing);
    tensor_.gather(chunk.partials, own_partials);
    ops::cross_entropy(s, sums, log_probability.empty() ? Tensor{} : log_probability.row_range(begin, n),
                       train ? d_logits : Tensor{}, chunk.logits, chunk.partials, tensor_.at().rank,
                       first_column_, targets, loss_mask, z_loss_);
    if (!train) continue;
    matmul(s, saved.d_normed.row_range(begin, n), d_logits, Transpose::no, embedding_.value, Transpose::no,
           scale_);
    add_product_to_gradient(s, embedding_, d_logits, y, scale_);
  }
  if (train) tensor_.leave(saved.d_normed);
}

void LossHead::backward(const PassContext& context, const DeviceBatch& batch, const Saved& saved,
                        const Tensor& d_x) const {
  const Tensor d_normed = tensor_.local(saved.d_normed);
  dropout_.drop(context, tensor_, batch.decoder, d_normed, d_normed);
  ops::rms_norm_backward_gain(context.stream, gain_.gradient, d_normed, saved.x, saved.inv_rms);
  ops::rms_norm_backward_input(context.stream, d_x, {}, d_normed, saved.x, saved.inv_rms, gain_.value);
}

void LossHead::logits(const PassContext& context, const Tensor& logits, const Tensor& normed) const {
  multiply(context, logits, normed, embedding_.value, Transpose::yes, scale_);
}

}  // namespace red::model
