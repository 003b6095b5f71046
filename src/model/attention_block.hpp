// Attention block: x <- x + concat(o) Wo, where o = attention over q = R(N(n Wq)), k = R(N(y Wk)), v = N(y
// Wv), and n = RMSNorm(x). Self-attention: y = n. Cross-attention: y = memory, the encoder's output
// (model-and-recipe "One attention"). N is the parameter-free head norm, R the rotary positions, both in
// place. Shapes: T query tokens, S key tokens, t own query tokens of the stream (model/tensor_axis.hpp), d
// model width, h own heads, w = h d_h.
#pragma once

#include "model/block.hpp"
#include "model/device_batch.hpp"
#include "model/dropout.hpp"
#include "model/kv_cache.hpp"

namespace red::model {

enum class AttentionKind { encoder_self, decoder_self, cross };

class AttentionBlock {
 public:
  /// Kept from forward to the backward passes.
  struct Saved {
    Tensor x;        ///< (t, d) input of the block
    Tensor inv_rms;  ///< (t, 1)
    Tensor q;        ///< (T, w) normalised and rotated
    Tensor k;        ///< (S, w) likewise
    Tensor v;        ///< (S, w) normalised
    Tensor
        qkv;  ///< self: (T, 3 w) that q, k and v are columns of; cross: (S, 2 w) that k and v are columns of
    Tensor inv_q;    ///< (T, h)
    Tensor inv_k;    ///< (S, h)
    Tensor inv_v;    ///< (S, h)
    Tensor lse;      ///< (h, T)
    Tensor o;        ///< (T, w), normalised where the configuration says so
    Tensor inv_o;    ///< (T, h) or (T, 1), or empty
    Tensor out;      ///< (t, d) normalised result, only with AttentionOutputNorm::after_wo
    Tensor inv_out;  ///< (t, 1)
  };
  /// Made by backward_input, read by backward_weight.
  struct Gradients {
    Tensor d_q, d_k, d_v;  ///< as q, k, v
    Tensor d_qkv;          ///< as qkv
    Tensor d_result;       ///< (T, d) gradient of the output matrix's result, where that is not d_out
  };

  /// `prefix` is "decoder.layers.3." or the like.
  AttentionBlock(const ParameterStore& store, const ModelConfig& config, const TensorAxis& tensor,
                 const DropoutConfig& dropout, const std::string& prefix, AttentionKind kind);

  AttentionKind kind() const { return kind_; }
  /// The heads that this tensor rank holds.
  int64_t first_head() const { return first_head_; }
  int64_t num_heads() const { return heads_; }
  Saved allocate_saved(Arena& arena, const BatchShape& shape) const;
  /// Saved::x alone.
  Tensor allocate_input(Arena& arena, const BatchShape& shape) const;
  /// d_result: kept elsewhere by the caller, see below; empty: allocated where it is not d_out.
  Gradients allocate_gradients(Arena& arena, const BatchShape& shape, const Tensor& d_result) const;
  /// Takes from `arena` what either backward pass takes at most for itself.
  void reserve_backward(Arena& arena, const BatchShape& shape) const;

  /// For passes that run apart: d_result, which then has to live until backward_weight; keep() puts the other
  /// gradients in the place of saved q, k and v, which nobody needs any more; kept() finds them there.
  Tensor allocate_kept(Arena& arena, const BatchShape& shape) const;
  void keep(const PassContext& context, const Saved& saved, const Gradients& gradients) const;
  Gradients kept(const Saved& saved, const Tensor& d_result) const;

  /// memory (S, d): cross-attention only. With a cache, new keys and values are stored there; with `read`
  /// queries look at what it holds instead of the pass's own, and cross-attention needs no memory.
  void forward(const PassContext& context, const DeviceBatch& batch, const Tensor& memory, Saved& saved,
               ForwardScratch& scratch, ResidualStream& stream, const CachedKeys& cached = {},
               bool read = false) const;
  /// d_x (t, d) from d_out (t, d), the gradient of the stream behind the block; two different tensors.
  /// Cross-attention adds its heads' part to d_memory (S, d).
  void backward_input(const PassContext& context, const DeviceBatch& batch, const Tensor& d_memory,
                      Saved& saved, const Gradients& gradients, Arena& work, const Tensor& d_x,
                      const Tensor& d_out) const;
  void backward_weight(const PassContext& context, const Tensor& memory, const Saved& saved,
                       const Gradients& gradients, Arena& work, const Tensor& d_out) const;

  /// Where queries and keys are, and which keys a query sees.
  ops::AttentionLayout layout(const DeviceBatch& batch) const;
  ops::AttentionMask mask(const DeviceBatch& batch) const;

 private:
  DType dtype() const { return output_.value.dtype; }
  struct Projections {
    Tensor q, k, v, whole;
  };
  struct Temporaries {
    Tensor normed;  ///< (T, d) the block's normalised input, or its gradient
    Tensor d_o;     ///< (T, w)
    Tensor delta;   ///< (h, T)
  };
  Projections allocate_projections(Arena& arena, const BatchShape& shape) const;
  Temporaries allocate_temporaries(Arena& arena, int64_t num_queries) const;
  int64_t num_queries(const BatchShape& shape) const;
  const DeviceSequences& queries(const DeviceBatch& batch) const;
  const DeviceSequences& keys(const DeviceBatch& batch) const;
  void project(const PassContext& context, const DeviceBatch& batch, const Tensor& normed,
               const Tensor& memory, const Saved& saved, bool any_keys) const;
  void store(const PassContext& context, const Saved& saved, const CachedKeys& cached) const;
  void attend(const PassContext& context, const DeviceBatch& batch, const Saved& saved,
              const CachedKeys& cached, bool read) const;
  void normalise_output(const PassContext& context, const Saved& saved) const;
  Tensor result_gradient(const PassContext& context, const DeviceBatch& batch, const Saved& saved,
                         const Gradients& gradients, const Tensor& d_out) const;
  void backward_output(const PassContext& context, const DeviceBatch& batch, const Saved& saved,
                       const Gradients& gradients, const Temporaries& temporaries, const Tensor& d_out) const;

  AttentionKind kind_;
  const TensorAxis& tensor_;
  int64_t first_head_, heads_, width_, d_model_;
  AttentionOutputNorm output_norm_;
  const Weight& gain_;
  const Weight* query_;      ///< cross: (d, w); self: null
  const Weight* key_value_;  ///< cross: (d, 2 w); self: (d, 3 w)
  const Weight& output_;     ///< (w, d)
  DropoutSite dropout_;
};

}  // namespace red::model
