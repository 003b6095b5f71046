// Feed-forward block: x <- x + (silu(n Wg) * (n Wu)) Wd with n = RMSNorm(x) (model-and-recipe "Blocks").
// Shapes: T tokens, t own tokens of the stream (all, or a share: model/tensor_axis.hpp), d model width, f own
// FFN columns. gate and up are one GEMM.
#pragma once

#include "model/block.hpp"
#include "model/dropout.hpp"

namespace red::model {

class FfnBlock {
 public:
  /// Kept from forward to the backward passes.
  struct Saved {
    Tensor x;        ///< (t, d) input of the block
    Tensor inv_rms;  ///< (t, 1)
    Tensor gate_up;  ///< (T, 2 f); backward_input leaves its gradient here
  };
  /// Made by backward_input, read by backward_weight.
  struct Gradients {
    Tensor hidden;    ///< (T, f) made again
    Tensor d_result;  ///< (T, d) gradient of the block's result, where that is not d_out
  };

  /// `prefix` is "encoder.layers.3." or the like.
  FfnBlock(const ParameterStore& store, const TensorAxis& tensor, const DropoutConfig& dropout,
           const std::string& prefix);

  int64_t width() const { return down_.value.rows; }  ///< f
  Saved allocate_saved(Arena& arena, int64_t tokens) const;
  /// The same but for gate_up, which the caller has elsewhere.
  Saved allocate_saved(Arena& arena, int64_t tokens, const Tensor& gate_up) const;
  Tensor allocate_gate_up(Arena& arena, int64_t tokens) const;
  /// With `apart`, backward_weight does not need d_out.
  Gradients allocate_gradients(Arena& arena, int64_t tokens, bool apart) const;
  /// Takes from `arena` what either pass takes at most for itself.
  void reserve_backward(Arena& arena, int64_t tokens) const;

  /// tokens: the layer's side of the batch.
  void forward(const PassContext& context, const DeviceSequences& tokens, Saved& saved,
               ForwardScratch& scratch, ResidualStream& stream) const;
  /// What forward leaves in `saved`, without the block's result.
  void forward_saved(const PassContext& context, Saved& saved, ForwardScratch& scratch,
                     ResidualStream& stream) const;
  /// saved.gate_up again from the rest of `saved`.
  void recompute_gate_up(const PassContext& context, const Saved& saved, ForwardScratch& scratch) const;
  /// d_x (t, d) from d_out (t, d), the gradient of the stream behind the block; two different tensors.
  /// Temporaries come from `work`.
  void backward_input(const PassContext& context, const DeviceSequences& tokens, Saved& saved,
                      const Gradients& gradients, Arena& work, const Tensor& d_x, const Tensor& d_out) const;
  void backward_weight(const PassContext& context, const Saved& saved, const Gradients& gradients,
                       Arena& work, const Tensor& d_out) const;

 private:
  DType dtype() const { return down_.value.dtype; }
  struct Temporaries {
    Tensor normed;    ///< (T, d) the block's normalised input, or its gradient
    Tensor d_hidden;  ///< (T, f)
  };
  Temporaries allocate_temporaries(Arena& arena, int64_t tokens) const;
  void project(const PassContext& context, const Saved& saved, const Tensor& normed) const;

  const TensorAxis& tensor_;
  const Weight &gain_, &gate_up_, &down_;
  int64_t first_column_;  ///< of own FFN columns
  DropoutSite hidden_dropout_, dropout_;
};

}  // namespace red::model
