#include "model/ffn_block.hpp"

#include "ops/matmul.hpp"
#include "ops/norm.hpp"
#include "ops/swiglu.hpp"

namespace red::model {

using ops::matmul;
using ops::Transpose;

FfnBlock::FfnBlock(const ParameterStore& store, const std::string& prefix)
    : gain_(store.weight(prefix + "ffn_norm.gain")),
      gate_up_(store.weight(prefix + "ffn.gate_up.weight")),
      down_(store.weight(prefix + "ffn.down.weight")) {}

FfnBlock::Saved FfnBlock::allocate_saved(Arena& arena, int64_t tokens) const {
  return {arena.allocate(tokens, gate_up_.value.rows), arena.allocate(tokens, 1),
          arena.allocate(tokens, gate_up_.value.cols)};
}

FfnBlock::Gradients FfnBlock::allocate_gradients(Arena& arena, int64_t tokens) const {
  const int64_t d_ff = down_.value.rows, d_model = down_.value.cols;
  return {arena.allocate(tokens, d_ff), arena.allocate(tokens, d_ff), arena.allocate(tokens, d_model)};
}

void FfnBlock::forward(const PassContext& context, Saved& saved, ForwardScratch& scratch,
                       ResidualStream& stream) const {
  begin_block(context, stream, saved.x, scratch.normed, saved.inv_rms, gain_.value);
  saved.x = stream.x;
  matmul(context.stream, saved.gate_up, scratch.normed, Transpose::no, gate_up_.value, Transpose::no);
  ops::swiglu(context.stream, scratch.hidden, saved.gate_up);
  matmul(context.stream, scratch.branch, scratch.hidden, Transpose::no, down_.value, Transpose::no);
  stream.branch = scratch.branch;
}

void FfnBlock::backward_input(const PassContext& context, Saved& saved, const Gradients& gradients,
                              const Tensor& d_x, const Tensor& d_out) const {
  Stream& s = context.stream;
  ops::swiglu(s, gradients.hidden, saved.gate_up);
  matmul(s, gradients.d_hidden, d_out, Transpose::no, down_.value, Transpose::yes);
  ops::swiglu_backward(s, saved.gate_up, gradients.d_hidden, saved.gate_up);
  matmul(s, gradients.d_normed, saved.gate_up, Transpose::no, gate_up_.value, Transpose::yes);
  ops::rms_norm_backward_gain(s, gain_.gradient, gradients.d_normed, saved.x, saved.inv_rms);
  ops::rms_norm_backward_input(s, d_x, d_out, gradients.d_normed, saved.x, saved.inv_rms, gain_.value);
}

void FfnBlock::backward_weight(const PassContext& context, const Saved& saved, const Gradients& gradients,
                               const Tensor& d_out) const {
  Stream& s = context.stream;
  const Tensor& normed = gradients.d_normed;  // its gradient is used up
  ops::rms_norm_recompute(s, normed, saved.x, saved.inv_rms, gain_.value);
  matmul(s, down_.gradient, gradients.hidden, Transpose::yes, d_out, Transpose::no, 1.0F, 1.0F);
  matmul(s, gate_up_.gradient, normed, Transpose::yes, saved.gate_up, Transpose::no, 1.0F, 1.0F);
}

}  // namespace red::model
