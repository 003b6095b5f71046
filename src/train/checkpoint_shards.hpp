// Which rectangles of which logical tensors a rank writes into a checkpoint, and reads from one.
#pragma once

#include <vector>

#include "checkpoint/shard.hpp"
#include "optim/adafactor.hpp"
#include "optim/parameter_shards.hpp"

namespace red::train {

/// Some rows of a rank's region, of a parameter or of a state with the parameter's shape; gains are vectors.
checkpoint::Shard shard_of(const std::string& path, const model::StoredParameter& parameter,
                           const optim::RowRange& rows, const Tensor& memory);
/// Factored state: the shard's own rows, the region's columns.
checkpoint::Shard row_statistic(const optim::AdafactorState& state);
checkpoint::Shard column_statistic(const optim::AdafactorState& state);

/// All that the rank at this place writes; of equal copies on several ranks, one.
std::vector<checkpoint::Shard> written_shards(const std::vector<optim::ParameterShard>& shards,
                                              const std::vector<optim::AdafactorState>& states,
                                              const optim::ShardPlace& at);

}  // namespace red::train
