// Logical parameters. A parameter is a name, a global shape and a rule for its initial values; optimizer,
// checkpoint, export and tests speak of these alone. Which stage holds one, and where in memory, is the
// ParameterStore's affair.
//
// Names (those of the golden files):
//   embedding.weight                                            (V, d)
//   {encoder|decoder}.layers.{i}.{block}_norm.gain              (d)
//   {encoder|decoder}.layers.{i}.{block}.{query|key|value}.weight  (d, h d_h)      y = x W
//   {encoder|decoder}.layers.{i}.{block}.output.weight          (h d_h, d)
//   {encoder|decoder}.layers.{i}.ffn_norm.gain                  (d)
//   {encoder|decoder}.layers.{i}.ffn.{gate|up}.weight           (d, f)
//   {encoder|decoder}.layers.{i}.ffn.down.weight                (f, d)
//   {encoder|decoder}.final_norm.gain                           (d)
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "model/model_config.hpp"

namespace red::model {

/// Which dim tensor parallelism divides over its ranks; a whole parameter has a copy on each of them.
enum class TensorCut { none, rows, columns };

struct ParameterSpec {
  std::string name;
  int64_t rows = 0;       ///< global
  int64_t cols = 1;       ///< global; 1 for gains, whose logical shape is (rows)
  double init_std = 0.0;  ///< N(0, std^2); 0: all ones (gains)
  TensorCut cut = TensorCut::none;
  int64_t cut_unit = 1;  ///< the cuts fall on multiples of it: heads stay whole
  int64_t index = 0;     ///< place among the parameters of the model
  bool is_gain() const { return init_std == 0.0; }
  int64_t size() const { return rows * cols; }
};

/// One of the ranks that share every layer of a stage.
struct TensorRank {
  int size = 1;
  int rank = 0;
};

/// Rows [row_begin, row_begin + num_rows) x columns [col_begin, col_begin + num_cols) of a parameter, global.
struct ParameterRegion {
  int64_t row_begin = 0, num_rows = 0;
  int64_t col_begin = 0, num_cols = 0;

  int64_t size() const { return num_rows * num_cols; }
};

/// The part of a parameter that a tensor rank holds. Parts are as even as the unit of the cut allows.
ParameterRegion region_of(const ParameterSpec& spec, const TensorRank& at);

/// All parameters of a model, the tied embedding once, in a fixed order.
std::vector<ParameterSpec> parameter_specs(const ModelConfig& config);

/// Number of parameters, the tied embedding counted once.
int64_t num_parameters(const ModelConfig& config);

/// Initial value of element `index` (row-major, global) of a parameter: a pure function of (seed, name,
/// index).
float initial_value(const ParameterSpec& spec, uint64_t seed, int64_t index);

/// The same for elements [begin, begin + values.size()), about four times as fast per element. Elements
/// outside the parameter are a LogicError.
void initial_values(const ParameterSpec& spec, uint64_t seed, int64_t begin, std::span<float> values);

}  // namespace red::model
