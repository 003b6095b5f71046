// How each op of a training step is set up at given sizes: what it works on, how much it does, and how it is
// run.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "launch/op_memory.hpp"
#include "ops/matmul_search.hpp"

namespace red::launch {

/// Counts of one run. Arithmetic beside products is counted by what the op's definition has for each element:
/// additions, multiplications, divisions, comparisons, roots and exponentials are one each; conversions,
/// random numbers and indices none. A kernel may compute more.
struct OpWork {
  double flops = 0.0;                ///< multiplications and additions of matrices
  double other_flops = 0.0;          ///< all other arithmetic
  double bytes = 0.0;                ///< each operand read once, each result written once
  std::function<void(Stream&)> run;  ///< once
  /// Of a product: the fastest way to do it (ops/matmul_search.hpp); c is spoilt.
  std::function<std::optional<ops::MatmulSearch>(Stream&)> search = {};
};

using OpBuild = std::function<OpWork(OpMemory&)>;

/// c (m, n) = a (m, k) b (k, n), both of `dtype`, c of `result`; with beta = 1 added to it.
struct ProductSizes {
  int64_t m, n, k;
  ops::Transpose transpose_a, transpose_b;
  DType dtype, result;
  float beta;
  DType a_in_place_of = dtype;  ///< rows of a lie where such elements were
};
OpBuild product(const ProductSizes& sizes);

/// y = x, each (rows, cols).
OpBuild copies(int64_t rows, int64_t cols, DType from, DType to);
/// y = y + x
OpBuild sums(int64_t rows, int64_t cols, DType dtype);
/// y = a + b
OpBuild sums_elsewhere(int64_t rows, int64_t cols, DType dtype);
OpBuild zeros(int64_t rows, int64_t cols, DType dtype);

/// `batch` sequences of `queries` and `keys` tokens each, h heads of width k.
struct AttentionSizes {
  int64_t batch, h, k, queries, keys;
  bool causal;
  DType dtype;
};
OpBuild attention_forward(const AttentionSizes& sizes);
OpBuild attention_gradients(const AttentionSizes& sizes);
OpBuild attention_delta(const AttentionSizes& sizes);

/// Of n tokens of width d.
struct RowSizes {
  int64_t n, d;
  DType dtype;
};
/// Whether the stream's value goes past a norm, and its gradient back.
enum class Residual : bool { no, yes };
OpBuild norm(const RowSizes& sizes, Residual residual, float epsilon);
OpBuild norm_again(const RowSizes& sizes);
OpBuild norm_input_gradient(const RowSizes& sizes, Residual residual);
OpBuild norm_gain_gradient(const RowSizes& sizes);
OpBuild swiglu(const RowSizes& sizes);
OpBuild swiglu_gradient(const RowSizes& sizes);
OpBuild dropout(const RowSizes& sizes);

/// h heads of width k of each of n tokens, in sequences of `length`.
struct HeadSizes {
  int64_t n, length, h, k;
  DType dtype;
};
OpBuild head_norm(const HeadSizes& sizes, float epsilon);
OpBuild head_norm_gradient(const HeadSizes& sizes);
OpBuild head_norm_rope(const HeadSizes& sizes, float epsilon, double rope_base);
OpBuild head_norm_rope_gradient(const HeadSizes& sizes, double rope_base);
/// The norm over all heads together, by sums that tensor ranks could add.
OpBuild split_norm(const HeadSizes& sizes, float epsilon);
OpBuild split_norm_gradient(const HeadSizes& sizes);

OpBuild embedding(const RowSizes& sizes, int64_t vocab);
OpBuild embedding_gradient(const RowSizes& sizes, int64_t vocab);
/// Both passes over the logits (n, vocab) of a chunk, which become their gradient.
OpBuild cross_entropy(int64_t n, int64_t vocab, DType dtype);

/// A matrix (rows, cols) of parameters or gradients.
struct ParameterSizes {
  int64_t rows, cols;
};
OpBuild gradient_norm(const ParameterSizes& sizes);
OpBuild adafactor_state(const ParameterSizes& sizes);
OpBuild adafactor_step(const ParameterSizes& sizes);
OpBuild factored_sums(const ParameterSizes& sizes);
OpBuild factored_statistics(const ParameterSizes& sizes);
OpBuild factored_rms(const ParameterSizes& sizes);
OpBuild factored_step(const ParameterSizes& sizes);
/// Of a step of a model with so many parameters, by name.
OpBuild step_scalars(int64_t num_parameters);

double elements(const Tensor& t);
double num_bytes(const Tensor& t);

}  // namespace red::launch
