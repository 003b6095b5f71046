#include "model/attention_block.hpp"

#include <algorithm>

#include "ops/elementwise.hpp"
#include "ops/matmul.hpp"
#include "ops/norm.hpp"
#include "ops/scatter_heads.hpp"
#include "ops/split_norm.hpp"

namespace red::model {

using ops::matmul;
using ops::Transpose;

namespace {

std::string block_name(AttentionKind kind) {
  return kind == AttentionKind::cross ? "cross_attention" : "self_attention";
}

/// By what the output was multiplied, or null.
const Tensor* inverse_norm(const AttentionBlock::Saved& saved) {
  return saved.inv_o.empty() ? nullptr : &saved.inv_o;
}

}  // namespace

AttentionBlock::AttentionBlock(const ParameterStore& store, const ModelConfig& config,
                               const TensorAxis& tensor, const DropoutConfig& dropout,
                               const std::string& prefix, AttentionKind kind)
    : kind_(kind),
      tensor_(tensor),
      first_head_(store.find(prefix + block_name(kind) + ".output.weight").region.row_begin /
                  config.head_dim),
      heads_(store.weight(prefix + block_name(kind) + ".output.weight").value.rows / config.head_dim),
      width_(heads_ * config.head_dim),
      d_model_(config.d_model),
      output_norm_(config.kind == Kind::red ? config.attention_output_norm : AttentionOutputNorm::none),
      gain_(store.weight(prefix + block_name(kind) + "_norm.gain")),
      query_(kind == AttentionKind::cross ? &store.weight(prefix + "cross_attention.query.weight") : nullptr),
      key_value_(
          &store.weight(prefix + (kind == AttentionKind::cross ? "cross_attention.key_value.weight"
                                                               : "self_attention.query_key_value.weight"))),
      output_(store.weight(prefix + block_name(kind) + ".output.weight")),
      dropout_(dropout, prefix + block_name(kind)) {}

const DeviceSequences& AttentionBlock::queries(const DeviceBatch& batch) const {
  return kind_ == AttentionKind::encoder_self ? batch.encoder : batch.decoder;
}

const DeviceSequences& AttentionBlock::keys(const DeviceBatch& batch) const {
  return kind_ == AttentionKind::decoder_self ? batch.decoder : batch.encoder;
}

ops::AttentionLayout AttentionBlock::layout(const DeviceBatch& batch) const {
  ops::AttentionLayout layout{batch.num_sequences, queries(batch).offsets, keys(batch).offsets, heads_};
  layout.longest_q = queries(batch).longest;
  layout.longest_k = keys(batch).longest;
  layout.shortest = std::min(queries(batch).shortest, keys(batch).shortest);
  return layout;
}

ops::AttentionMask AttentionBlock::mask(const DeviceBatch& batch) const {
  const bool causal = kind_ == AttentionKind::decoder_self;
  return {causal, causal ? batch.prefixes : nullptr, queries(batch).documents, keys(batch).documents};
}

int64_t AttentionBlock::num_queries(const BatchShape& shape) const {
  return kind_ == AttentionKind::encoder_self ? shape.encoder_tokens : shape.decoder_tokens;
}

AttentionBlock::Projections AttentionBlock::allocate_projections(Arena& arena,
                                                                 const BatchShape& shape) const {
  if (kind_ == AttentionKind::cross) {
    const Tensor kv = arena.allocate(shape.encoder_tokens, 2 * width_, dtype());
    return {arena.allocate(shape.decoder_tokens, width_, dtype()), kv.col_range(0, width_),
            kv.col_range(width_, width_), kv};
  }
  const int64_t tokens = num_queries(shape);
  const Tensor qkv = arena.allocate(tokens, 3 * width_, dtype());
  return {qkv.col_range(0, width_), qkv.col_range(width_, width_), qkv.col_range(2 * width_, width_), qkv};
}

AttentionBlock::Saved AttentionBlock::allocate_saved(Arena& arena, const BatchShape& shape) const {
  const Projections p = allocate_projections(arena, shape);
  const int64_t num_queries = p.q.rows, num_keys = p.k.rows;
  Saved saved;
  saved.x = allocate_input(arena, shape);
  saved.inv_rms = tensor_.allocate_local(arena, num_queries, 1, DType::fp32);
  saved.q = p.q;
  saved.k = p.k;
  saved.v = p.v;
  saved.qkv = p.whole;
  saved.inv_q = arena.allocate(num_queries, heads_);
  saved.inv_k = arena.allocate(num_keys, heads_);
  saved.inv_v = arena.allocate(num_keys, heads_);
  saved.lse = arena.allocate(heads_, num_queries);
  saved.o = arena.allocate(num_queries, width_, dtype());
  if (output_norm_ == AttentionOutputNorm::head) saved.inv_o = arena.allocate(num_queries, heads_);
  if (output_norm_ == AttentionOutputNorm::concat) saved.inv_o = arena.allocate(num_queries, 1);
  if (output_norm_ == AttentionOutputNorm::after_wo) {
    saved.out = tensor_.allocate_local(arena, num_queries, d_model_, dtype());
    saved.inv_out = tensor_.allocate_local(arena, num_queries, 1, DType::fp32);
  }
  return saved;
}

Tensor AttentionBlock::allocate_input(Arena& arena, const BatchShape& shape) const {
  return tensor_.allocate_local(arena, num_queries(shape), d_model_, dtype());
}

AttentionBlock::Gradients AttentionBlock::allocate_gradients(Arena& arena, const BatchShape& shape,
                                                             const Tensor& d_result) const {
  const Projections p = allocate_projections(arena, shape);
  Gradients gradients{p.q, p.k, p.v, p.whole, d_result};
  const bool not_d_out =
      output_norm_ == AttentionOutputNorm::after_wo || tensor_.sequence_parallel() || dropout_.exists();
  if (d_result.empty() && not_d_out) gradients.d_result = allocate_kept(arena, shape);
  return gradients;
}

AttentionBlock::Temporaries AttentionBlock::allocate_temporaries(Arena& arena, int64_t num_queries) const {
  return {tensor_.allocate_full(arena, num_queries, d_model_, dtype()),
          arena.allocate(num_queries, width_, dtype()), arena.allocate(heads_, num_queries)};
}

void AttentionBlock::reserve_backward(Arena& arena, const BatchShape& shape) const {
  const ArenaScope scope(arena);
  allocate_temporaries(arena, num_queries(shape));
}

Tensor AttentionBlock::allocate_kept(Arena& arena, const BatchShape& shape) const {
  return tensor_.allocate_full(arena, num_queries(shape), d_model_, dtype());
}

void AttentionBlock::keep(const PassContext& context, const Saved& saved, const Gradients& gradients) const {
  ops::copy(context.stream, saved.qkv, gradients.d_qkv);
  if (kind_ == AttentionKind::cross) ops::copy(context.stream, saved.q, gradients.d_q);
}

AttentionBlock::Gradients AttentionBlock::kept(const Saved& saved, const Tensor& d_result) const {
  return {saved.q, saved.k, saved.v, saved.qkv, d_result};
}

void AttentionBlock::project(const PassContext& context, const DeviceBatch& batch, const Tensor& normed,
                             const Tensor& memory, const Saved& saved, bool any_keys) const {
  Stream& s = context.stream;
  const auto epsilon = static_cast<float>(context.config.norm_epsilon);
  if (kind_ == AttentionKind::cross) {
    multiply(context, saved.q, normed, query_->value);
    if (any_keys) multiply(context, saved.qkv, memory, key_value_->value);
  } else {
    multiply(context, saved.qkv, normed, key_value_->value);
  }
  ops::head_norm_rope(s, saved.q, saved.inv_q, heads_, epsilon, context.rope, queries(batch).positions);
  if (!any_keys) return;
  ops::head_norm_rope(s, saved.k, saved.inv_k, heads_, epsilon, context.rope, keys(batch).positions);
  ops::head_norm(s, saved.v, saved.inv_v, heads_, epsilon);
}

void AttentionBlock::store(const PassContext& context, const Saved& saved, const CachedKeys& cached) const {
  for (const auto& [to, from] : {std::pair(cached.keys, saved.k), std::pair(cached.values, saved.v)})
    ops::scatter_heads(context.stream, to, from, cached.new_rows, heads_, cached.head_rows);
}

void AttentionBlock::attend(const PassContext& context, const DeviceBatch& batch, const Saved& saved,
                            const CachedKeys& cached, bool read) const {
  ops::AttentionLayout where = layout(batch);
  if (!read)
    return ops::attention_forward(context.stream, saved.o, saved.lse, saved.q, saved.k, saved.v, where,
                                  mask(batch));
  where.k_offsets = cached.offsets;
  where.k_lengths = cached.lengths;
  where.k_head_rows = cached.head_rows;
  // All that was written before is visible, and nothing else is there.
  ops::attention_forward(context.stream, saved.o, saved.lse, saved.q, cached.keys, cached.values, where, {});
}

void AttentionBlock::normalise_output(const PassContext& context, const Saved& saved) const {
  const auto epsilon = static_cast<float>(context.config.norm_epsilon);
  if (output_norm_ == AttentionOutputNorm::head)
    ops::head_norm(context.stream, saved.o, saved.inv_o, heads_, epsilon);
  if (output_norm_ == AttentionOutputNorm::concat) {
    Stream& s = context.stream;
    const ArenaScope scope(s.scratch());
    const Tensor squares = s.scratch().allocate(saved.o.rows, 1);
    ops::row_dots(s, squares, saved.o, saved.o);
    tensor_.sum(squares);
    ops::split_norm(s, saved.o, saved.inv_o, squares, context.config.attention_width(), epsilon);
  }
}

void AttentionBlock::forward(const PassContext& context, const DeviceBatch& batch, const Tensor& memory,
                             Saved& saved, ForwardScratch& scratch, ResidualStream& stream,
                             const CachedKeys& cached, bool read) const {
  Stream& s = context.stream;
  begin_block(context, stream, saved.x, tensor_.local(scratch.normed), saved.inv_rms, gain_.value);
  saved.x = stream.x;
  tensor_.enter(scratch.normed);
  project(context, batch, scratch.normed, memory, saved, !read || cached.new_rows != nullptr);
  if (cached.new_rows != nullptr) store(context, saved, cached);
  attend(context, batch, saved, cached, read);
  normalise_output(context, saved);
  multiply(context, scratch.branch, saved.o, output_.value);
  tensor_.leave(scratch.branch);
  stream.branch = tensor_.local(scratch.branch);
  if (output_norm_ == AttentionOutputNorm::after_wo) {
    ops::copy(s, saved.out, stream.branch);
    ops::head_norm(s, saved.out, saved.inv_out, 1, static_cast<float>(context.config.norm_epsilon));
    stream.branch = saved.out;
  }
  if (dropout_.exists()) {  // saved.out is kept
    const Tensor branch = tensor_.local(scratch.branch);
    dropout_.drop(context, tensor_, queries(batch), branch, stream.branch);
    stream.branch = branch;
  }
}

/// (T, d), of the output matrix's result, for all tokens.
Tensor AttentionBlock::result_gradient(const PassContext& context, const DeviceBatch& batch,
                                       const Saved& saved, const Gradients& gradients,
                                       const Tensor& d_out) const {
  if (output_norm_ != AttentionOutputNorm::after_wo)
    return gather_result_gradient(context, tensor_, dropout_, queries(batch), gradients.d_result, d_out);
  const Tensor own = tensor_.local(gradients.d_result);
  dropout_.drop(context, tensor_, queries(batch), own, d_out);
  ops::head_norm_backward(context.stream, own, saved.out, saved.inv_out, 1);
  tensor_.enter(gradients.d_result);
  return gradients.d_result;
}

void AttentionBlock::backward_output(const PassContext& context, const DeviceBatch& batch, const Saved& saved,
                                     const Gradients& gradients, const Temporaries& t,
                                     const Tensor& d_out) const {
  Stream& s = context.stream;
  const Tensor d_result = result_gradient(context, batch, saved, gradients, d_out);
  matmul(s, t.d_o, d_result, Transpose::no, output_.value, Transpose::yes);
  if (output_norm_ == AttentionOutputNorm::head)
    ops::head_norm_backward(s, t.d_o, saved.o, saved.inv_o, heads_);
  if (output_norm_ == AttentionOutputNorm::concat) {
    const ArenaScope scope(s.scratch());
    const Tensor dots = s.scratch().allocate(saved.o.rows, 1);
    ops::row_dots(s, dots, t.d_o, saved.o);
    tensor_.sum(dots);
    ops::split_norm_backward(s, t.d_o, saved.o, saved.inv_o, dots, context.config.attention_width());
  }
  ops::attention_delta(s, t.delta, t.d_o, saved.o, inverse_norm(saved));
}

void AttentionBlock::backward_input(const PassContext& context, const DeviceBatch& batch,
                                    const Tensor& d_memory, Saved& saved, const Gradients& gradients,
                                    Arena& work, const Tensor& d_x, const Tensor& d_out) const {
  Stream& s = context.stream;
  const ArenaScope scope(work);
  const Temporaries t = allocate_temporaries(work, saved.o.rows);
  backward_output(context, batch, saved, gradients, t, d_out);
  ops::attention_backward(s, gradients.d_q, gradients.d_k, gradients.d_v, t.d_o, t.delta, saved.q, saved.k,
                          saved.v, saved.lse, layout(batch), mask(batch), {&saved.o, inverse_norm(saved)});
  ops::head_norm_rope_backward(s, gradients.d_q, saved.q, saved.inv_q, heads_, context.rope,
                               queries(batch).positions);
  ops::head_norm_rope_backward(s, gradients.d_k, saved.k, saved.inv_k, heads_, context.rope,
                               keys(batch).positions);
  ops::head_norm_backward(s, gradients.d_v, saved.v, saved.inv_v, heads_);
  if (kind_ == AttentionKind::cross) {
    matmul(s, t.normed, gradients.d_q, Transpose::no, query_->value, Transpose::yes);
    matmul(s, d_memory, gradients.d_qkv, Transpose::no, key_value_->value, Transpose::yes, 1.0F, 1.0F);
  } else {
    matmul(s, t.normed, gradients.d_qkv, Transpose::no, key_value_->value, Transpose::yes);
  }
  tensor_.leave(t.normed);
  const Tensor d_normed = tensor_.local(t.normed);
  ops::rms_norm_backward_gain(s, gain_.gradient, d_normed, saved.x, saved.inv_rms);
  ops::rms_norm_backward_input(s, d_x, d_out, d_normed, saved.x, saved.inv_rms, gain_.value);
}

void AttentionBlock::backward_weight(const PassContext& context, const Tensor& memory, const Saved& saved,
                                     const Gradients& gradients, Arena& work, const Tensor& d_out) const {
  Stream& s = context.stream;
  const ArenaScope scope(work);
  const Tensor& d_result = gradients.d_result.empty() ? d_out : gradients.d_result;
  const Tensor normed = tensor_.allocate_full(work, saved.o.rows, d_model_, dtype());
  ops::rms_norm_recompute(s, tensor_.local(normed), saved.x, saved.inv_rms, gain_.value);
  tensor_.enter(normed);
  add_product_to_gradient(s, output_, saved.o, d_result);
  if (kind_ == AttentionKind::cross) {
    add_product_to_gradient(s, *query_, normed, gradients.d_q);
    add_product_to_gradient(s, *key_value_, memory, gradients.d_qkv);
  } else {
    add_product_to_gradient(s, *key_value_, normed, gradients.d_qkv);
  }
}

}  // namespace red::model
