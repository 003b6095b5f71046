#include "model/loss_head.hpp"

#include <algorithm>
#include <cmath>

#include "ops/cross_entropy.hpp"
#include "ops/matmul.hpp"
#include "ops/norm.hpp"

namespace red::model {

using ops::matmul;
using ops::Transpose;

LossHead::LossHead(const ParameterStore& store, const ModelConfig& config, int64_t chunk, float z_loss)
    : gain_(store.weight("decoder.final_norm.gain")),
      embedding_(store.weight("embedding.weight")),
      chunk_(chunk),
      z_loss_(z_loss),
      scale_(static_cast<float>(1.0 / std::sqrt(static_cast<double>(config.d_model)))) {}

LossHead::Saved LossHead::allocate_saved(Arena& arena, int64_t tokens) const {
  const int64_t d_model = embedding_.value.cols;
  return {arena.allocate(tokens, d_model), arena.allocate(tokens, 1), arena.allocate(tokens, d_model)};
}

void LossHead::reserve_logits(Arena& arena, int64_t tokens) const {
  const ArenaScope scope(arena);
  arena.allocate(std::min(chunk_, tokens), embedding_.value.rows);
}

void LossHead::normalise(const PassContext& context, Saved& saved, const Tensor& normed,
                         ResidualStream& stream) const {
  begin_block(context, stream, saved.x, normed, saved.inv_rms, gain_.value);
  saved.x = stream.x;
}

void LossHead::forward(const PassContext& context, const DeviceBatch& batch, Saved& saved,
                       const Tensor& normed, Arena& work, ResidualStream& stream, const Tensor& sums,
                       const Tensor& log_probability, bool train) const {
  Stream& s = context.stream;
  normalise(context, saved, normed, stream);
  const int64_t tokens = normed.rows;
  for (int64_t begin = 0; begin < tokens; begin += chunk_) {
    const int64_t n = std::min(chunk_, tokens - begin);
    const ArenaScope scope(work);
    const Tensor chunk_logits = work.allocate(n, embedding_.value.rows);
    const Tensor y = normed.row_range(begin, n);
    logits(context, chunk_logits, y);
    ops::cross_entropy(s, sums, log_probability.empty() ? Tensor{} : log_probability.row_range(begin, n),
                       chunk_logits, batch.targets + begin, batch.loss_mask + begin, z_loss_,
                       train ? ops::LogitsBecome::gradient : ops::LogitsBecome::nothing);
    if (!train) continue;
    matmul(s, saved.d_normed.row_range(begin, n), chunk_logits, Transpose::no, embedding_.value,
           Transpose::no, scale_);
    matmul(s, embedding_.gradient, chunk_logits, Transpose::yes, y, Transpose::no, scale_, 1.0F);
  }
}

void LossHead::backward(const PassContext& context, const Saved& saved, const Tensor& d_x) const {
  ops::rms_norm_backward_gain(context.stream, gain_.gradient, saved.d_normed, saved.x, saved.inv_rms);
  ops::rms_norm_backward_input(context.stream, d_x, {}, saved.d_normed, saved.x, saved.inv_rms, gain_.value);
}

void LossHead::logits(const PassContext& context, const Tensor& logits, const Tensor& normed) const {
  matmul(context.stream, logits, normed, Transpose::no, embedding_.value, Transpose::yes, scale_);
}

}  // namespace red::model
