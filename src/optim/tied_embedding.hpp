// The tied embedding's copies: encoder input, decoder input and head may lie on different stages. The head's
// stage owns the parameter: the others give it their gradients and take its updated rows, so all copies stay
// the same bits. Rank for rank along the pipeline: each data rank exchanges its own rows only.
#pragma once

#include <vector>

#include "optim/parameter_shards.hpp"

namespace red::optim {

class TiedEmbedding {
 public:
  /// holders: stages with a copy, ascending; pipeline: one rank per stage. `shard` is this stage's, or null.
  TiedEmbedding(Stream& stream, const ParameterShard* shard, const std::vector<int>& holders, int owner,
                parallel::Communicator& pipeline);

  /// The owner's shard gradient becomes the sum over all holders, added in the order of the stages.
  void reduce();
  /// Every holder's rows become the owner's.
  void share();

  std::size_t num_bytes() const { return received_.num_bytes(); }
  /// Of its messages; ranks are stages.
  static std::vector<parallel::Route> routes(const std::vector<int>& holders, int owner);

  /// What num_bytes() will be on stage `stage`.
  static std::size_t count_bytes(const ParameterShard* shard, const std::vector<int>& holders, int owner,
                                 int stage);

 private:
  bool takes_part() const { return shard_ != nullptr && holders_.size() > 1; }

  Stream& stream_;
  const ParameterShard* shard_;
  std::vector<int> holders_;
  int owner_;
  parallel::Communicator& pipeline_;
  Buffer received_;  ///< owner: one other holder's gradient
};

}  // namespace red::optim
