#include "launch/op_cases.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "launch/op_cases_step.hpp"
#include "ops/adafactor.hpp"
#include "ops/attention.hpp"
#include "ops/cross_entropy.hpp"
#include "ops/norm.hpp"
#include "ops/reduce.hpp"

namespace red::launch {

using model::AttentionOutputNorm;
using model::Recompute;
using ops::Transpose;

namespace {

/// Layers of one kind.
struct Stack {
  std::string name;
  int64_t length;      ///< tokens of a sequence
  double layers;       ///< how many
  double recomputed;   ///< of them, whose forward pass runs again for the backward one
  double gate_up_too;  ///< of them, of which only gate and up are computed again
  bool causal;
  double pieces;  ///< pieces of the pipeline that they are divided over
};

class CaseList {
 public:
  CaseList(const config::RunConfig& config, const data::SampleLengths& lengths)
      : config_(config),
        model_(config.model),
        lengths_(lengths),
        dtype_(config.train.precision == model::Precision::bf16 ? DType::bf16 : DType::fp32),
        epsilon_(static_cast<float>(config.model.norm_epsilon)) {}

  std::vector<OpCase> make();

 private:
  void add(std::string name, std::string shape, double per_micro_batch, OpBuild build) {
    cases_.push_back({std::move(name), std::move(shape), per_micro_batch, 0.0, std::move(build)});
  }
  void add_product(const std::string& name, const ProductSizes& sizes, double times);
  void add_products(const std::string& name, int64_t tokens, int64_t in, int64_t out, double forward,
                    double backward, const ProductSizes& input_gradient);
  void add_matrix(const std::string& name, int64_t tokens, int64_t in, int64_t out, double forward,
                  double backward);
  void add_memory_matrix(const Stack& cross, int64_t tokens, double forward);
  void add_attention(const std::string& name, const AttentionSizes& sizes, double forward, double backward);
  void add_block_norms(const Stack& stack, double first, double others);
  void add_heads(const std::string& name, const HeadSizes& sizes, double forward, double backward,
                 bool rotated);
  void add_output_norm(const Stack& stack, const HeadSizes& sizes, double forward);
  void add_self_attention(const Stack& stack);
  void add_cross_attention(const Stack& stack);
  void add_feed_forward(const Stack& stack);
  void add_embedding(const Stack& stack);
  void add_dropout(const Stack& stack, double blocks);
  void add_loss();

  Stack stack(const std::string& name, int64_t length, int64_t layers, bool causal) const;
  int64_t tokens(const Stack& stack) const { return config_.train.micro_batch * stack.length; }
  HeadSizes heads(int64_t length, int64_t num_heads) const {
    return {config_.train.micro_batch * length, length, num_heads, model_.head_dim, dtype_};
  }
  RowSizes rows(const Stack& stack, int64_t width) const { return {tokens(stack), width, dtype_}; }

  const config::RunConfig& config_;
  const model::ModelConfig& model_;
  const data::SampleLengths lengths_;
  const DType dtype_;
  const float epsilon_;
  std::vector<OpCase> cases_;
};

std::string shape_of(int64_t rows, int64_t cols) {
  return fmt::format("({}, {})", rows, cols);
}

Stack CaseList::stack(const std::string& name, int64_t length, int64_t layers, bool causal) const {
  const config::TrainConfig& train = config_.train;
  const int64_t some = train.recompute_layers == 0 ? layers : std::min(layers, train.recompute_layers);
  const auto if_is = [&](Recompute kind) {
    return train.recompute == kind ? static_cast<double>(some) : 0.0;
  };
  return {name,
          length,
          static_cast<double>(layers),
          if_is(Recompute::full),
          if_is(Recompute::selective),
          causal,
          static_cast<double>(causal ? decoder_pieces(config_) : encoder_pieces(config_))};
}

void CaseList::add_product(const std::string& name, const ProductSizes& s, double times) {
  add(name, fmt::format("m {} n {} k {}", s.m, s.n, s.k), times, product(s));
}

/// y = x w, and both gradients; w's is added to in fp32, but for the first micro-batch of a step, which
/// writes it.
void CaseList::add_products(const std::string& name, int64_t tokens, int64_t in, int64_t out, double forward,
                            double backward, const ProductSizes& input_gradient) {
  add_product(name, {tokens, out, in, Transpose::no, Transpose::no, dtype_, dtype_, 0.0F}, forward);
  add_product(name + ", input gradient", input_gradient, backward);
  add_product(name + ", weight gradient",
              {in, out, tokens, Transpose::yes, Transpose::no, dtype_, DType::fp32, 1.0F}, backward);
}

void CaseList::add_matrix(const std::string& name, int64_t tokens, int64_t in, int64_t out, double forward,
                          double backward) {
  add_products(name, tokens, in, out, forward, backward,
               {tokens, in, out, Transpose::no, Transpose::yes, dtype_, dtype_, 0.0F});
}

/// Keys and values of the encoder's output, whose gradient each layer adds to, in fp32.
void CaseList::add_memory_matrix(const Stack& cross, int64_t tokens, double forward) {
  const int64_t d = model_.d_model, out = 2 * model_.attention_width();
  add_products(cross.name + "k, v", tokens, d, out, forward, cross.layers,
               {tokens, d, out, Transpose::no, Transpose::yes, dtype_, DType::fp32, 1.0F});
}

void CaseList::add_attention(const std::string& name, const AttentionSizes& s, double forward,
                             double backward) {
  const std::string shape =
      fmt::format("{} x {} heads, {} by {}, width {}", s.batch, s.h, s.queries, s.keys, s.k);
  add(name, shape, forward, attention_forward(s));
  cases_.back().attention = true;
  add(name + ", gradients", shape, backward, attention_gradients(s));
  cases_.back().attention = true;
  add(name + ", delta", shape, backward, attention_delta(s));
}

/// Of one block of each layer: so many have nothing to add to the stream, the others the branch before them.
void CaseList::add_block_norms(const Stack& stack, double first, double others) {
  const RowSizes s = rows(stack, model_.d_model);
  const std::string shape = shape_of(s.n, s.d);
  if (first > 0.0) add(stack.name + "first norm", shape, first, norm(s, Residual::no, epsilon_));
  if (others > 0.0) add(stack.name + "residual, norm", shape, others, norm(s, Residual::yes, epsilon_));
  add(stack.name + "norm again", shape, stack.layers, norm_again(s));
  add(stack.name + "norm, input gradient", shape, stack.layers, norm_input_gradient(s, Residual::yes));
  add(stack.name + "norm, gain gradient", shape, stack.layers, norm_gain_gradient(s));
}

void CaseList::add_heads(const std::string& name, const HeadSizes& s, double forward, double backward,
                         bool rotated) {
  const std::string shape = shape_of(s.n, s.h * s.k);
  const double base = model_.rope_base;
  add(name, shape, forward, rotated ? head_norm_rope(s, epsilon_, base) : head_norm(s, epsilon_));
  add(name + ", gradient", shape, backward,
      rotated ? head_norm_rope_gradient(s, base) : head_norm_gradient(s));
}

void CaseList::add_output_norm(const Stack& stack, const HeadSizes& s, double forward) {
  const std::string name = stack.name + "attention's output norm";
  switch (model_.has_encoder() ? model_.attention_output_norm : AttentionOutputNorm::none) {
    case AttentionOutputNorm::none:
      return;
    case AttentionOutputNorm::head:
      return add_heads(name, s, forward, stack.layers, false);
    case AttentionOutputNorm::after_wo:
      add(name + ", copy", shape_of(s.n, model_.d_model), forward + stack.layers,
          copies(s.n, model_.d_model, dtype_, dtype_));
      return add_heads(name, {s.n, s.length, 1, model_.d_model, dtype_}, forward, stack.layers, false);
    case AttentionOutputNorm::concat:
      add(name, shape_of(s.n, s.h * s.k), forward, split_norm(s, epsilon_));
      add(name + ", gradient", shape_of(s.n, s.h * s.k), stack.layers, split_norm_gradient(s));
  }
}

void CaseList::add_self_attention(const Stack& stack) {
  const int64_t n = tokens(stack), h = model_.num_heads, width = model_.attention_width();
  const double forward = stack.layers + stack.recomputed;
  const double first =
      stack.pieces + stack.recomputed;  // a layer that is computed again begins with its input
  add_block_norms(stack, first, forward - first);
  add_matrix(stack.name + "q, k, v", n, model_.d_model, 3 * width, forward, stack.layers);
  add_heads(stack.name + "q, k norm, rotation", heads(stack.length, h), 2.0 * forward, 2.0 * stack.layers,
            true);
  add_heads(stack.name + "v norm", heads(stack.length, h), forward, stack.layers, false);
  add_attention(
      stack.name + (stack.causal ? "self-attention, causal" : "self-attention"),
      {config_.train.micro_batch, h, model_.head_dim, stack.length, stack.length, stack.causal, dtype_},
      forward, stack.layers);
  add_output_norm(stack, heads(stack.length, h), forward);
  add_matrix(stack.name + "attention output", n, width, model_.d_model, forward, stack.layers);
}

void CaseList::add_cross_attention(const Stack& stack) {
  const int64_t h = model_.num_heads, width = model_.attention_width();
  const double forward = stack.layers + stack.recomputed;
  const Stack cross = {"cross-attention, ", stack.length, stack.layers, stack.recomputed, 0.0, false, 0.0};
  const HeadSizes queries = heads(stack.length, h), keys = heads(lengths_.encoder, h);
  add_block_norms(cross, 0.0, forward);
  add_matrix(cross.name + "q", queries.n, model_.d_model, width, forward, stack.layers);
  add_memory_matrix(cross, keys.n, forward);
  add_heads(cross.name + "q norm, rotation", queries, forward, stack.layers, true);
  add_heads(cross.name + "k norm, rotation", keys, forward, stack.layers, true);
  add_heads(cross.name + "v norm", keys, forward, stack.layers, false);
  add_attention(
      "cross-attention",
      {config_.train.micro_batch, h, model_.head_dim, stack.length, lengths_.encoder, false, dtype_}, forward,
      stack.layers);
  add_output_norm(cross, queries, forward);
  add_matrix(cross.name + "output", queries.n, width, model_.d_model, forward, stack.layers);
}

void CaseList::add_feed_forward(const Stack& stack) {
  const int64_t n = tokens(stack), d = model_.d_model, f = model_.d_ff;
  Stack block = stack;
  block.name += "feed-forward, ";
  add_block_norms(block, 0.0, stack.layers + stack.recomputed);
  if (stack.gate_up_too > 0.0)
    add(block.name + "norm for recomputing", shape_of(n, d), stack.gate_up_too, norm_again(rows(stack, d)));
  add_matrix(stack.name + "gate, up", n, d, 2 * f, stack.layers + stack.recomputed + stack.gate_up_too,
             stack.layers);
  // The backward pass needs its result again, which is not kept.
  add(stack.name + "SwiGLU", shape_of(n, f), 2.0 * stack.layers, swiglu(rows(stack, f)));
  add(stack.name + "SwiGLU, gradient", shape_of(n, f), stack.layers, swiglu_gradient(rows(stack, f)));
  add_matrix(stack.name + "down", n, f, d, stack.layers, stack.layers);
}

void CaseList::add_embedding(const Stack& stack) {
  const RowSizes s = rows(stack, model_.d_model);
  add(stack.name + "embedding", shape_of(s.n, s.d), 1.0, embedding(s, model_.vocab_size));
  add(stack.name + "embedding, gradient", shape_of(s.n, s.d), 1.0, embedding_gradient(s, model_.vocab_size));
  Stack last = stack;  // the norm behind all layers
  last.name += "final norm, ";
  add(last.name + "residual", shape_of(s.n, s.d), 1.0, norm(s, Residual::yes, epsilon_));
  add(last.name + "input gradient", shape_of(s.n, s.d), 1.0, norm_input_gradient(s, Residual::no));
  add(last.name + "gain gradient", shape_of(s.n, s.d), 1.0, norm_gain_gradient(s));
}

/// Forward and backward: of embedding, final norm and each block's result; of the hidden activations, which
/// the backward pass makes again, once more.
void CaseList::add_dropout(const Stack& stack, double blocks) {
  if (config_.train.dropout == 0.0) return;
  const RowSizes whole = rows(stack, model_.d_model), hidden = rows(stack, model_.d_ff);
  add(stack.name + "dropout", shape_of(whole.n, whole.d), 2.0 * (blocks * stack.layers + 2.0),
      dropout(whole));
  add(stack.name + "dropout, hidden", shape_of(hidden.n, hidden.d), 3.0 * stack.layers, dropout(hidden));
}

/// Logits against the embedding (V, d), a chunk of tokens at a time.
void CaseList::add_loss() {
  const int64_t n = config_.train.micro_batch * lengths_.decoder, v = model_.vocab_size, d = model_.d_model;
  const int64_t chunk = std::min(n, config_.train.head_chunk);
  const double chunks = static_cast<double>(n) / static_cast<double>(chunk);
  add_product("logits", {chunk, v, d, Transpose::no, Transpose::yes, dtype_, DType::fp32, 0.0F}, chunks);
  add("cross-entropy", shape_of(chunk, v), chunks, cross_entropy(chunk, v, dtype_));
  add_product("logits, input gradient",
              {chunk, d, v, Transpose::no, Transpose::no, dtype_, dtype_, 0.0F, DType::fp32}, chunks);
  add_product("logits, weight gradient",
              {v, d, chunk, Transpose::yes, Transpose::no, dtype_, DType::fp32, 1.0F, DType::fp32}, chunks);
}

std::vector<OpCase> CaseList::make() {
  if (model_.has_encoder()) {
    const Stack encoder = stack("encoder, ", lengths_.encoder, model_.encoder_layers, false);
    add_self_attention(encoder);
    add_feed_forward(encoder);
    add_embedding(encoder);
    add_dropout(encoder, 2.0);
  }
  const Stack decoder = stack("decoder, ", lengths_.decoder, model_.decoder_layers, true);
  add_self_attention(decoder);
  if (model_.has_encoder()) add_cross_attention(decoder);
  add_feed_forward(decoder);
  add_embedding(decoder);
  add_dropout(decoder, model_.has_encoder() ? 3.0 : 2.0);
  add_loss();
  for (OpCase& op : step_op_cases(config_, lengths_)) cases_.push_back(std::move(op));
  return std::move(cases_);
}

}  // namespace

std::vector<OpCase> op_cases(const config::RunConfig& config, const data::SampleLengths& lengths) {
  return CaseList(config, lengths).make();
}

std::size_t op_scratch_bytes(const config::RunConfig& config, const data::SampleLengths& lengths,
                             int num_threads) {
  const model::ModelConfig& m = config.model;
  const int64_t batch = config.train.micro_batch, longest = std::max(lengths.encoder, lengths.decoder);
  const DType dtype = config.train.precision == model::Precision::bf16 ? DType::bf16 : DType::fp32;
  return std::max(
      {ops::matmul_scratch_bytes(num_threads, dtype),
       ops::attention_scratch_bytes(num_threads, m.num_heads, m.head_dim, batch, longest, dtype,
                                    batch * longest),
       ops::rms_norm_scratch_bytes(batch * longest, m.d_model),
       ops::cross_entropy_scratch_bytes(std::min(batch * lengths.decoder, config.train.head_chunk)),
       ops::sum_of_squares_scratch_bytes(m.d_model * m.d_ff), ops::adafactor_scratch_bytes(m.d_model, m.d_ff),
       ops::adafactor_factored_scratch_bytes(m.d_model, m.d_ff)});
}

}  // namespace red::launch
