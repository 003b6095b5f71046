// What the blocks of a layer share. Activations and their gradients have the dtype of the matrices, fp32 or
// bf16; statistics, gains and gradients of parameters are fp32. A block is one pre-norm residual branch: x <-
// x + f(RMSNorm(x)), in three passes (docs/architecture.md): forward, backward_input and backward_weight, so
// that a schedule may run the last two apart. The sum x + f is left to whoever reads the stream next, where
// it costs nothing beside the norm. Shapes: T tokens of a micro-batch, t own tokens of the stream
// (model/tensor_axis.hpp), d model width.
#pragma once

#include "model/model_config.hpp"
#include "model/parameter_store.hpp"
#include "model/tensor_axis.hpp"
#include "ops/dropout.hpp"
#include "ops/head_norm_rope.hpp"
#include "ops/matmul.hpp"

namespace red::model {

class DropoutSite;
struct DeviceSequences;

/// The residual stream between two blocks: its value is x + branch. branch is empty right behind an embedding
/// or a stage boundary.
struct ResidualStream {
  Tensor x;       ///< (t, d)
  Tensor branch;  ///< (t, d) or empty
};

struct DropoutConfig {
  float rate = 0.0F;  ///< 0: nothing is dropped
  uint64_t seed = 0;
};

/// What every pass of every block needs.
struct PassContext {
  Stream& stream;
  const ModelConfig& config;
  const ops::RopeTable& rope;
  bool training = false;    ///< whether dropout drops
  bool generating = false;  ///< whether products of few rows have a kernel of their own
};

/// c (T, n) = alpha a (T, k) op(weight) (k, n), in a forward pass. In generation few rows have their own
/// kernel; elsewhere a row's sums are those of the library however few rows a micro-batch has.
void multiply(const PassContext& context, const Tensor& c, const Tensor& a, const Tensor& weight,
              ops::Transpose transpose = ops::Transpose::no, float alpha = 1.0F);

/// Scratch that one forward pass hands from block to block, (T, ...) for the largest T of the stage.
struct ForwardScratch {
  Tensor normed;  ///< (T, d) the block's normalised input
  Tensor branch;  ///< (T, d) the block's result
  Tensor hidden;  ///< (T, f) FFN
};

/// Room for the gradient of a block's result where that is not d_out itself: its rank has a share of the
/// tokens, or `apart`: backward_weight runs when d_out is gone, or elements are dropped. Empty elsewhere.
Tensor allocate_result_gradient(const TensorAxis& tensor, Arena& arena, int64_t tokens, int64_t d_model,
                                DType dtype, bool apart);
/// (T, d) gradient of a branch's result from that of own tokens, d_out (t, d): gathered into `d_result` where
/// that is not empty, without what `site` drops of `tokens`; d_out itself elsewhere.
Tensor gather_result_gradient(const PassContext& context, const TensorAxis& tensor, const DropoutSite& site,
                              const DeviceSequences& tokens, const Tensor& d_result, const Tensor& d_out);

/// x_out: where the block's input x is kept (when the stream has a branch to add). Leaves the normalised
/// input in `normed`, the stream's new x in stream.x.
void begin_block(const PassContext& context, ResidualStream& stream, const Tensor& x_out,
                 const Tensor& normed, const Tensor& inv_rms, const Tensor& gain);

}  // namespace red::model
