// The end of the decoder: final norm, logits = y E^T / sqrt(d), cross-entropy with z-loss. Logits exist for
// one chunk of tokens at a time and become their own gradient there, so forward and backward through the
// vocabulary are one pass: forward leaves the gradient of y, and adds to that of E (model-and-recipe
// "Objective"). Shapes: T decoder tokens, t own tokens of the stream (model/tensor_axis.hpp), V own columns
// of the vocabulary, d model width.
#pragma once

#include "model/block.hpp"
#include "model/device_batch.hpp"
#include "model/dropout.hpp"

namespace red::model {

class LossHead {
 public:
  struct Saved {
    Tensor x;         ///< (t, d) the stream's end
    Tensor inv_rms;   ///< (t, 1)
    Tensor d_normed;  ///< (T, d) gradient of the final norm's result: own tokens are whole
  };
  /// chunk: most tokens whose logits are in memory at a time.
  LossHead(const ParameterStore& store, const ModelConfig& config, const TensorAxis& tensor,
           const DropoutConfig& dropout, int64_t chunk, float z_loss);

  Saved allocate_saved(Arena& arena, int64_t tokens) const;
  /// Takes from `arena` what the passes take at most.
  void reserve_logits(Arena& arena, int64_t tokens) const;

  /// The final norm alone: `normed` (T, d) of all tokens is what logits() takes.
  void normalise(const PassContext& context, const DeviceBatch& batch, Saved& saved, const Tensor& normed,
                 ResidualStream& stream) const;
  /// sums (2, 1) fp64 grow by sum of CE + z-loss and of CE. log_probability (T, 1), optional. With `train`,
  /// the gradient is left in saved.d_normed and the embedding's gradient grows.
  void forward(const PassContext& context, const DeviceBatch& batch, Saved& saved, const Tensor& normed,
               Arena& work, ResidualStream& stream, const Tensor& sums, const Tensor& log_probability,
               bool train) const;
  /// d_x (t, d): gradient of the stream's end.
  void backward(const PassContext& context, const DeviceBatch& batch, const Saved& saved,
                const Tensor& d_x) const;

  /// own logits (n, V) of the rows of `normed` (n, d), the final norm's result.
  void logits(const PassContext& context, const Tensor& logits, const Tensor& normed) const;
  int64_t first_column() const { return first_column_; }
  int64_t num_columns() const { return embedding_.value.rows; }

 private:
  /// Of n tokens at a time.
  struct Chunk {
    Tensor logits;    ///< (n, V) fp32; their gradient takes their place
    Tensor partials;  ///< (tensor ranks, 3 n) fp64
  };
  DType dtype() const { return embedding_.value.dtype; }
  Chunk allocate_chunk(Arena& arena, int64_t tokens) const;

  const TensorAxis& tensor_;
  const Weight &gain_, &embedding_;
  int64_t first_column_, chunk_;
  float z_loss_, scale_;
  DropoutSite dropout_;
};

}  // namespace red::model
