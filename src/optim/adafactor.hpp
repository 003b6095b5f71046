// Adafactor over this rank's shards (model-and-recipe "Recipe"; T5X's rule, without momentum and weight
// decay). RMS is always over the whole logical parameter: sums over a shard are reduced over the ranks of the
// stage, all parameters in one message, a fixed number of messages per step.
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
  Tensor v_col;  ///< (cols, 1) of the region, the same on every data rank: means over rows
};

class Adafactor {
 public:
  /// State of the shards that this stage owns; zero.
  Adafactor(Stream& stream, const AdafactorConfig& config, const ParameterShards& shards,
            const parallel::Mesh& mesh);

  /// One update of the owned shards. `scalars` as update_scalars() left them, (kStepScalars, 1) fp64.
  void update(const Tensor& scalars);

  const std::vector<AdafactorState>& states() const { return states_; }
  std::size_t num_bytes() const { return memory_.capacity(); }

 private:
  void allocate(Arena& arena);
  void allocate_factored(Arena& arena);
  void reduce(parallel::Communicator& ranks, const Tensor& sums, const char* what);
  void update_factored_statistics(const ops::AdafactorScalars& scalars);

  Stream& stream_;
  AdafactorConfig config_;
  ops::AdafactorRule rule_;
  const parallel::Mesh& mesh_;
  std::vector<AdafactorState> states_;
  Arena memory_;
  // fp64 sums over whole parameters, in the order of states_
  Tensor sum_u2_p2_;  ///< (states, 2)
  Tensor row_total_;  ///< (states, 1) factored: sum of v_row
  Tensor col_sums_;   ///< factored: all parameters' column sums, whole, one after another
  Tensor row_sums_;   ///< factored: the shards' row sums; first those of parameters cut by columns,
  int64_t num_partial_rows_ = 0;  ///< so many, of which each tensor rank knows a part
  std::vector<Tensor> row_sum_;   ///< factored: (rows, 1) of the shard, views into row_sums_
  std::vector<Tensor> col_sum_;   ///< factored: (cols, 1) of the region, views into col_sums_
  Tensor unused_;                 ///< takes sums that another rank counts
};

}  // namespace red::optim
