// Adafactor over this rank's shards (model-and-recipe "Recipe"; T5X's rule, without momentum and weight
// decay). RMS is always over the whole logical parameter: sums over a shard are reduced over the data ranks,
// all parameters in one message, a fixed number of messages per step.
#pragma once

#include <string>
#include <vector>

#include "ops/adafactor.hpp"
#include "optim/optimizer_config.hpp"
#include "optim/parameter_shards.hpp"

namespace red::optim {

/// Second moments of one parameter's rows: v, or when factored v_row and v_col.
struct AdafactorState {
  const ParameterShard* shard = nullptr;
  bool factored = false;
  Tensor v;      ///< (rows, cols) of the shard
  Tensor v_row;  ///< (rows, 1) of the shard: means over columns
  Tensor v_col;  ///< (cols, 1) whole, the same on every data rank: means over rows
};

class Adafactor {
 public:
  /// State of the shards that this stage owns; zero. `data` reduces over the ranks that share a parameter.
  Adafactor(Stream& stream, const AdafactorConfig& config, const ParameterShards& shards,
            parallel::Communicator& data);

  /// One update of the owned shards. `scalars` as update_scalars() left them, (kStepScalars, 1) fp64.
  void update(const Tensor& scalars);

  const std::vector<AdafactorState>& states() const { return states_; }
  std::size_t num_bytes() const { return memory_.capacity(); }

 private:
  void allocate(Arena& arena);
  void reduce(const Tensor& sums, const char* what);
  void update_factored_statistics(const ops::AdafactorScalars& scalars);

  Stream& stream_;
  AdafactorConfig config_;
  ops::AdafactorRule rule_;
  parallel::Communicator& data_;
  std::vector<AdafactorState> states_;
  Arena memory_;
  // fp64 sums over whole parameters, in the order of states_
  Tensor sum_u2_p2_;             ///< (states, 2)
  Tensor row_total_;             ///< (states, 1) factored: sum of v_row
  Tensor col_sums_;              ///< factored: all parameters' column sums, one after another
  std::vector<Tensor> row_sum_;  ///< factored: (rows, 1) of the shard
  std::vector<Tensor> col_sum_;  ///< factored: views into col_sums_
};

}  // namespace red::optim
