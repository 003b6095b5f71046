// Parameter-free RMSNorm over the head width, per head, with rotary positions behind it (model-and-recipe
// "One attention", 2, 3 and 5). In place: the norm has no gain and the rotation is orthogonal, so the
// normalised value and inv_rms are all that the backward pass needs. Shapes: n tokens, h heads, k head width;
// x, y, dx (n, h k), all fp32 or all bf16, any row stride; inv_rms (n, h) fp32.
#pragma once

#include <cstdint>

#include "device/stream.hpp"
#include "device/tensor.hpp"

namespace red::ops {

/// cos and sin of position / base^(i / (k/2)), i < k/2, for positions 0 ... num_positions - 1; made once, in
/// fp64, held as fp32.
class RopeTable {
 public:
  RopeTable(int64_t num_positions, int64_t head_dim, double base, Memory memory = Memory::real);
  int64_t num_positions() const { return num_positions_; }
  int64_t half() const { return half_; }
  std::size_t num_bytes() const { return buffer_.num_bytes(); }
  const float* cos() const {
    return reinterpret_cast<const float*>(buffer_.data());
  }  ///< (num_positions, k/2)
  const float* sin() const {
    return reinterpret_cast<const float*>(buffer_.data()) + num_positions_ * half_;
  }  ///< (num_positions, k/2)

 private:
  int64_t num_positions_, half_;
  Buffer buffer_;
};

/// x <- norm(x) per head; inv_rms is kept.
void head_norm(Stream& stream, const Tensor& x, const Tensor& inv_rms, int64_t num_heads, float epsilon);

/// x <- rotate-half(norm(x)) per head at positions[token] (device memory, (n)), each below
/// table.num_positions().
void head_norm_rope(Stream& stream, const Tensor& x, const Tensor& inv_rms, int64_t num_heads, float epsilon,
                    const RopeTable& table, const int32_t* positions);

/// dx, the gradient of head_norm's result, becomes the gradient of its argument. y is head_norm's result.
void head_norm_backward(Stream& stream, const Tensor& dx, const Tensor& y, const Tensor& inv_rms,
                        int64_t num_heads);

/// The same for head_norm_rope.
void head_norm_rope_backward(Stream& stream, const Tensor& dx, const Tensor& y, const Tensor& inv_rms,
                             int64_t num_heads, const RopeTable& table, const int32_t* positions);

}  // namespace red::ops
