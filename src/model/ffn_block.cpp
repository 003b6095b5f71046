#include "model/ffn_block.hpp"

#include "ops/matmul.hpp"
#include "ops/norm.hpp"
#include "ops/swiglu.hpp"

namespace red::model {

using ops::matmul;
using ops::Transpose;

FfnBlock::FfnBlock(const ParameterStore& store, const TensorAxis& tensor, const DropoutConfig& dropout,
                   const std::string& prefix)
    : tensor_(tensor),
      gain_(store.weight(prefix + "ffn_norm.gain")),
      gate_up_(store.weight(prefix + "ffn.gate_up.weight")),
      down_(store.weight(prefix + "ffn.down.weight")),
      first_column_(store.find(prefix + "ffn.down.weight").region.row_begin),
      hidden_dropout_(dropout, prefix + "ffn.hidden"),
      dropout_(dropout, prefix + "ffn") {}

FfnBlock::Saved FfnBlock::allocate_saved(Arena& arena, int64_t tokens) const {
  Saved saved = allocate_saved(arena, tokens, {});
  saved.gate_up = allocate_gate_up(arena, tokens);
  return saved;
}

FfnBlock::Saved FfnBlock::allocate_saved(Arena& arena, int64_t tokens, const Tensor& gate_up) const {
  return {tensor_.allocate_local(arena, tokens, gate_up_.value.rows, dtype()),
          tensor_.allocate_local(arena, tokens, 1, DType::fp32), gate_up};
}

Tensor FfnBlock::allocate_gate_up(Arena& arena, int64_t tokens) const {
  return arena.allocate(tokens, gate_up_.value.cols, dtype());
}

FfnBlock::Gradients FfnBlock::allocate_gradients(Arena& arena, int64_t tokens, bool apart) const {
  return {arena.allocate(tokens, width(), dtype()),
          allocate_result_gradient(tensor_, arena, tokens, down_.value.cols, dtype(),
                                   apart || dropout_.exists())};
}

FfnBlock::Temporaries FfnBlock::allocate_temporaries(Arena& arena, int64_t tokens) const {
  return {tensor_.allocate_full(arena, tokens, down_.value.cols, dtype()),
          arena.allocate(tokens, width(), dtype())};
}

void FfnBlock::reserve_backward(Arena& arena, int64_t tokens) const {
  const ArenaScope scope(arena);
  allocate_temporaries(arena, tokens);
}

void FfnBlock::project(const PassContext& context, const Saved& saved, const Tensor& normed) const {
  tensor_.enter(normed);
  multiply(context, saved.gate_up, normed, gate_up_.value);
}

void FfnBlock::forward_saved(const PassContext& context, Saved& saved, ForwardScratch& scratch,
                             ResidualStream& stream) const {
  begin_block(context, stream, saved.x, tensor_.local(scratch.normed), saved.inv_rms, gain_.value);
  saved.x = stream.x;
  project(context, saved, scratch.normed);
}

void FfnBlock::recompute_gate_up(const PassContext& context, const Saved& saved,
                                 ForwardScratch& scratch) const {
  ops::rms_norm_recompute(context.stream, tensor_.local(scratch.normed), saved.x, saved.inv_rms, gain_.value);
  project(context, saved, scratch.normed);
}

void FfnBlock::forward(const PassContext& context, const DeviceSequences& tokens, Saved& saved,
                       ForwardScratch& scratch, ResidualStream& stream) const {
  forward_saved(context, saved, scratch, stream);
  ops::swiglu(context.stream, scratch.hidden, saved.gate_up);
  hidden_dropout_.drop_columns(context, tokens, scratch.hidden, first_column_);
  multiply(context, scratch.branch, scratch.hidden, down_.value);
  tensor_.leave(scratch.branch);
  stream.branch = tensor_.local(scratch.branch);
  dropout_.drop(context, tensor_, tokens, stream.branch, stream.branch);
}

void FfnBlock::backward_input(const PassContext& context, const DeviceSequences& tokens, Saved& saved,
                              const Gradients& gradients, Arena& work, const Tensor& d_x,
                              const Tensor& d_out) const {
  Stream& s = context.stream;
  const ArenaScope scope(work);
  const Temporaries t = allocate_temporaries(work, saved.gate_up.rows);
  const Tensor d_result =
      gather_result_gradient(context, tensor_, dropout_, tokens, gradients.d_result, d_out);
  ops::swiglu(s, gradients.hidden, saved.gate_up);
  hidden_dropout_.drop_columns(context, tokens, gradients.hidden, first_column_);
  matmul(s, t.d_hidden, d_result, Transpose::no, down_.value, Transpose::yes);
  hidden_dropout_.drop_columns(context, tokens, t.d_hidden, first_column_);
  ops::swiglu_backward(s, saved.gate_up, t.d_hidden, saved.gate_up);
  matmul(s, t.normed, saved.gate_up, Transpose::no, gate_up_.value, Transpose::yes);
  tensor_.leave(t.normed);
  const Tensor d_normed = tensor_.local(t.normed);
  ops::rms_norm_backward_gain(s, gain_.gradient, d_normed, saved.x, saved.inv_rms);
  ops::rms_norm_backward_input(s, d_x, d_out, d_normed, saved.x, saved.inv_rms, gain_.value);
}

void FfnBlock::backward_weight(const PassContext& context, const Saved& saved, const Gradients& gradients,
                               Arena& work, const Tensor& d_out) const {
  Stream& s = context.stream;
  const ArenaScope scope(work);
  const Tensor normed = tensor_.allocate_full(work, saved.gate_up.rows, down_.value.cols, dtype());
  const Tensor& d_result = gradients.d_result.empty() ? d_out : gradients.d_result;
  ops::rms_norm_recompute(s, tensor_.local(normed), saved.x, saved.inv_rms, gain_.value);
  tensor_.enter(normed);
  add_product_to_gradient(s, down_, gradients.hidden, d_result);
  add_product_to_gradient(s, gate_up_, normed, saved.gate_up);
}

}  // namespace red::model
