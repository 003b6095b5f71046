// Feed-forward block: x <- x + (silu(n Wg) * (n Wu)) Wd with n = RMSNorm(x) (model-and-recipe "Blocks").
// Shapes: T tokens, d model width, f FFN width. gate and up are one GEMM.
#pragma once

#include "model/block.hpp"

namespace red::model {

class FfnBlock {
 public:
  /// Kept from forward to the backward passes.
  struct Saved {
    Tensor x;        ///< (T, d) input of the block
    Tensor inv_rms;  ///< (T, 1)
    Tensor gate_up;  ///< (T, 2 f); backward_input leaves its gradient here
  };
  /// Made by backward_input, read by backward_weight.
  struct Gradients {
    Tensor hidden;    ///< (T, f) made again
    Tensor d_hidden;  ///< (T, f)
    Tensor d_normed;  ///< (T, d); backward_weight leaves the normalised input here
  };

  /// `prefix` is "encoder.layers.3." or the like.
  FfnBlock(const ParameterStore& store, const std::string& prefix);

  Saved allocate_saved(Arena& arena, int64_t tokens) const;
  Gradients allocate_gradients(Arena& arena, int64_t tokens) const;

  void forward(const PassContext& context, Saved& saved, ForwardScratch& scratch,
               ResidualStream& stream) const;
  /// d_x (T, d) from d_out (T, d), the gradient of the stream behind the block; two different tensors.
  void backward_input(const PassContext& context, Saved& saved, const Gradients& gradients, const Tensor& d_x,
                      const Tensor& d_out) const;
  void backward_weight(const PassContext& context, const Saved& saved, const Gradients& gradients,
                       const Tensor& d_out) const;

 private:
  const Weight &gain_, &gate_up_, &down_;
};

}  // namespace red::model
