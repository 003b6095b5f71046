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

/// Everything that Adafactor keeps, between steps and within one.
struct AdafactorMemory {
  /// One state for each shard that this stage owns, without memory. `shards` must outlive it.
  AdafactorMemory(const AdafactorConfig& config, const std::vector<ParameterShard>& shards);
  /// Takes every tensor from `arena`.
  void allocate(Arena& arena);
  std::size_t count_bytes();
  /// What an update takes at most from a stream's scratch memory, the norm of the gradients before it
  /// included.
  std::size_t scratch_bytes() const;

  std::vector<AdafactorState> states;
  // fp64 sums over whole parameters, in the order of states
  Tensor sum_u2_p2;  ///< (states, 2)
  Tensor row_total;  ///< (states, 1) factored: sum of v_row
  Tensor col_sums;   ///< factored: all parameters' column sums, whole, one after another
  Tensor row_sums;   ///< factored: the shards' row sums; first those of parameters cut by columns,
  int64_t num_partial_rows = 0;  ///< so many, of which each tensor rank knows a part
  std::vector<Tensor> row_sum;   ///< factored: (rows, 1) of the shard, views into row_sums
  std::vector<Tensor> col_sum;   ///< factored: (cols, 1) of the region, views into col_sums
  Tensor unused;                 ///< takes sums that another rank counts

 private:
  void allocate_factored(Arena& arena);
};

class Adafactor {
 public:
  /// State of the shards that this stage owns; zero.
  Adafactor(Stream& stream, const AdafactorConfig& config, const ParameterShards& shards,
            const parallel::Mesh& mesh);

  /// One update of the owned shards. `scalars` as update_scalars() left them, (kStepScalars, 1) fp64.
  void update(const Tensor& scalars);

  const std::vector<AdafactorState>& states() const { return memory_.states; }
  std::size_t num_bytes() const { return arena_.capacity(); }
  std::size_t scratch_bytes() const { return memory_.scratch_bytes(); }

 private:
  void reduce(parallel::Communicator& ranks, const Tensor& sums, const char* what);
  void update_factored_statistics(const ops::AdafactorScalars& scalars);

  Stream& stream_;
  ops::AdafactorRule rule_;
  const parallel::Mesh& mesh_;
  AdafactorMemory memory_;
  Arena arena_;
};

}  // namespace red::optim
