// Private to attention on a GPU: the passes by tensor cores, for what they take.
#pragma once

#include <cstdint>

#include "ops/attention.hpp"

namespace red::ops {

struct QueryRow;

/// bf16, heads of 64 or 128 columns, rows that begin where 16 bytes can be read.
bool tensor_cores_take(int64_t head_dim, const Tensor& q, const Tensor& keys, const Tensor& values);

/// As attention_forward. Probabilities are rounded to bf16 before they meet the values, as the products'
/// operands are: an error of 2^-9 of a row's largest terms.
void attention_forward_tensor_core(Stream& stream, const Tensor& o, const Tensor& lse, const Tensor& q,
                                   const Tensor& keys, const Tensor& values, const AttentionLayout& layout,
                                   const QueryRow* rows);

/// As attention_backward. Probabilities and the gradients of scores are rounded to bf16, as above.
void attention_backward_tensor_core(Stream& stream, const Tensor& dq, const Tensor& dk, const Tensor& dv,
                                    const Tensor& d_o, const Tensor& delta, const Tensor& q,
                                    const Tensor& keys, const Tensor& values, const Tensor& lse,
                                    const AttentionLayout& layout, const QueryRow* rows);

}  // namespace red::ops
