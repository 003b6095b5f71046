#include "train/checkpoint_shards.hpp"

namespace red::train {
namespace {

checkpoint::Shard vector_shard(const std::string& path, int64_t size, int64_t begin, const Tensor& memory) {
  return {{path, size, 0, DType::fp32}, begin, memory.rows, 0, 1, memory.data, 1};
}

}  // namespace

checkpoint::Shard shard_of(const std::string& path, const model::StoredParameter& parameter,
                           const optim::RowRange& rows, const Tensor& memory) {
  const auto& [spec, region, weight] = parameter;
  return {{path, spec.rows, spec.is_gain() ? 0 : spec.cols, DType::fp32},
          region.row_begin + rows.begin,
          rows.count,
          region.col_begin,
          region.num_cols,
          memory.data,
          memory.row_stride};
}

checkpoint::Shard row_statistic(const optim::AdafactorState& state) {
  const model::ParameterSpec& spec = state.shard->parameter->spec;
  return vector_shard("optimizer/v_row/" + spec.name, spec.rows, state.shard->first_row(), state.v_row);
}

checkpoint::Shard column_statistic(const optim::AdafactorState& state) {
  const auto& [spec, region, weight] = *state.shard->parameter;
  return vector_shard("optimizer/v_col/" + spec.name, spec.cols, region.col_begin, state.v_col);
}

std::vector<checkpoint::Shard> written_shards(const std::vector<optim::ParameterShard>& shards,
                                              const std::vector<optim::AdafactorState>& states,
                                              const optim::ShardPlace& at) {
  std::vector<checkpoint::Shard> result;
  const auto add = [&](const checkpoint::Shard& shard) {
    if (shard.num_rows > 0 && shard.num_cols > 0) result.push_back(shard);
  };
  for (const optim::ParameterShard& shard : shards) {
    const std::string path = "parameters/" + shard.parameter->spec.name;
    if (shard.counted) add(shard_of(path, *shard.parameter, shard.rows, shard.weight));
  }
  for (const optim::AdafactorState& state : states) {
    const model::ParameterSpec& spec = state.shard->parameter->spec;
    if (!state.factored) {
      if (state.shard->counted)
        add(shard_of("optimizer/v/" + spec.name, *state.shard->parameter, state.shard->rows, state.v));
      continue;
    }
    // Ranks that share its rows, or its columns, have the same statistic of them: the first of them writes
    // it.
    const bool first_tensor = at.tensor == 0, first_data = at.data == 0;
    if (first_tensor || spec.cut == model::TensorCut::rows) add(row_statistic(state));
    if (first_data && (first_tensor || spec.cut == model::TensorCut::columns)) add(column_statistic(state));
  }
  return result;
}

}  // namespace red::train
