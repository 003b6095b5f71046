// What of an engine goes into a checkpoint, and how it comes back: logical names and global rows only, so
// that any layout reads what any other wrote.
#include "train/engine.hpp"

namespace red::train {
namespace {

/// Some of a region's rows, of a parameter or of a state with the parameter's shape; gains are vectors.
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

checkpoint::Shard vector_shard(const std::string& path, int64_t size, int64_t begin, const Tensor& memory) {
  return {{path, size, 0, DType::fp32}, begin, memory.rows, 0, 1, memory.data, 1};
}

checkpoint::Shard row_statistic(const optim::AdafactorState& state) {
  const model::ParameterSpec& spec = state.shard->parameter->spec;
  return vector_shard("optimizer/v_row/" + spec.name, spec.rows, state.shard->first_row(), state.v_row);
}

checkpoint::Shard column_statistic(const optim::AdafactorState& state) {
  const auto& [spec, region, weight] = *state.shard->parameter;
  return vector_shard("optimizer/v_col/" + spec.name, spec.cols, region.col_begin, state.v_col);
}

}  // namespace

std::vector<checkpoint::Shard> Engine::checkpoint_shards() {
  RED_CHECK(options_.train, "only a training engine writes checkpoints");
  std::vector<checkpoint::Shard> result;
  const auto add = [&](const checkpoint::Shard& shard) {
    if (shard.num_rows > 0 && shard.num_cols > 0) result.push_back(shard);
  };
  for (const optim::ParameterShard& shard : shards_->shards()) {
    const std::string path = "parameters/" + shard.parameter->spec.name;
    if (shard.counted) add(shard_of(path, *shard.parameter, shard.rows, shard.weight));
  }
  for (const optim::AdafactorState& state : adafactor_->states()) {
    const model::ParameterSpec& spec = state.shard->parameter->spec;
    if (!state.factored) {
      if (state.shard->counted)
        add(shard_of("optimizer/v/" + spec.name, *state.shard->parameter, state.shard->rows, state.v));
      continue;
    }
    // Ranks that share its rows, or its columns, have the same statistic of them: the first of them writes
    // it.
    const bool first_tensor = mesh_.at().tensor == 0, first_data = mesh_.at().data == 0;
    if (first_tensor || spec.cut == model::TensorCut::rows) add(row_statistic(state));
    if (first_data && (first_tensor || spec.cut == model::TensorCut::columns)) add(column_statistic(state));
  }
  return result;
}

std::map<std::string, std::string> Engine::checkpoint_extra() const {
  return {{"updates", fmt::format("{:.0f}", *updates_.as<double>())}};
}

void Engine::load(const checkpoint::Reader& reader, bool optimizer_state) {
  for (const model::StoredParameter& p : store_.parameters()) {
    reader.read(shard_of("parameters/" + p.spec.name, p, {0, p.region.num_rows}, p.weight.value));
  }
  if (!optimizer_state) return;
  const auto& extra = reader.metadata().extra;
  const auto updates = extra.find("updates");
  if (updates == extra.end()) throw DataError("checkpoint: the count of optimizer updates is missing");
  *updates_.as<double>() = std::stod(updates->second);
  for (const optim::AdafactorState& state : adafactor_->states()) {
    if (state.factored) {
      reader.read(row_statistic(state));
      reader.read(column_statistic(state));
    } else {
      reader.read(shard_of("optimizer/v/" + state.shard->parameter->spec.name, *state.shard->parameter,
                           state.shard->rows, state.v));
    }
  }
}

}  // namespace red::train
