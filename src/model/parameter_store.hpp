// The parameters that one rank holds: where each logical parameter lies in memory, and its gradient beside
// it. Matrices that multiply the same input are fused: stored as column blocks of one wider matrix, so that
// one GEMM serves them all; each logical matrix is then a view with a row stride (docs/adr/0002).
//   {block}.query|key|value.weight -> {block}.query_key_value.weight   self-attention (d, 3 h d_h)
//   {block}.key|value.weight       -> {block}.key_value.weight         cross-attention (d, 2 h d_h)
//   ffn.gate|up.weight             -> ffn.gate_up.weight               (d, 2 f)
#pragma once

#include <deque>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "device/stream.hpp"
#include "model/parameter.hpp"

namespace red::model {

/// A matrix as the layers see it: one logical parameter, or several fused ones.
struct Weight {
  Tensor value;           ///< (rows, cols) of the region that this rank holds: what layers compute with
  Tensor gradient;        ///< the same shape, fp32; accumulates over the micro-batches of a step
  bool* begun = nullptr;  ///< whether gradient holds something of this step; fused ones share it
};

/// One logical parameter, or this rank's part of it.
struct StoredParameter {
  ParameterSpec spec;
  ParameterRegion region;
  Weight weight;
};

class ParameterStore {
 public:
  /// Zeroed memory for these parameters. `with_gradients` = false for evaluation: gradients are empty
  /// tensors. dtype: of matrices, fp32 or bf16; gains are fp32.
  ParameterStore(const std::vector<ParameterSpec>& specs, const TensorRank& at, bool with_gradients,
                 DType dtype = DType::fp32, Memory memory = Memory::real);

  /// In the order of `specs`.
  const std::vector<StoredParameter>& parameters() const { return parameters_; }
  DType dtype() const { return dtype_; }
  const StoredParameter& find(std::string_view name) const;
  /// By logical or fused name.
  const Weight& weight(std::string_view name) const;

  /// A step begins: nothing that is in the gradients counts any more. Gains' and the embedding's become zero.
  /// A layer's matrix has its first product written over what was there (add_product_to_gradient), which
  /// saves writing and reading all of them once.
  void begin_gradients(Stream& stream);
  /// No more products come in this step: zero where none came.
  void end_gradients(Stream& stream);
  /// Initial values, a function of (seed, name, element) alone.
  void initialize(Stream& stream, uint64_t seed);

  std::size_t value_bytes() const { return values_.num_bytes(); }
  std::size_t gradient_bytes() const { return gradients_.num_bytes(); }

 private:
  /// What lies together: a fused matrix, or a parameter that is not fused.
  struct Gradient {
    Tensor tensor;
    bool by_products = false;  ///< only by add_product_to_gradient is something added to it
    bool begun = false;
  };

  DType dtype_;
  std::vector<StoredParameter> parameters_;
  std::unordered_map<std::string, Weight> weights_;
  std::unordered_map<std::string, std::size_t> index_;
  std::deque<Gradient> gradient_of_;  ///< stays where it is: weights point into it
  Buffer values_, gradients_;
};

/// gradient += alpha a^T b, for a (n, rows) and b (n, cols).
void add_product_to_gradient(Stream& stream, const Weight& weight, const Tensor& a, const Tensor& b,
                             float alpha = 1.0F);

/// Initial values of rows row_begin ... of this rank's part of a parameter: `out` (rows, region.num_cols),
/// fp32 or bf16.
void initialize_rows(Stream& stream, const Tensor& out, const StoredParameter& parameter, int64_t row_begin,
                     uint64_t seed);

/// The name of the fused matrix that holds this parameter; its own name when it is not fused.
std::string fused_name(std::string_view parameter_name);

}  // namespace red::model
