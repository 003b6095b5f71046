// What of an engine goes into a checkpoint, and how it comes back: logical names and global rows only, so
// that any layout reads what any other wrote.
#include "train/engine.hpp"

namespace red::train {
namespace {

/// A shard of a parameter or of a state with the parameter's shape; gains are vectors.
checkpoint::Shard shard_of(const std::string& path, const model::ParameterSpec& spec,
                           const optim::RowRange& rows, const Tensor& memory) {
  return {{path, spec.rows, spec.is_gain() ? 0 : spec.cols, DType::fp32},
          rows.begin,
          rows.count,
          0,
          spec.cols,
          memory.data,
          memory.row_stride};
}

checkpoint::Shard vector_shard(const std::string& path, int64_t size, const optim::RowRange& rows,
                               const Tensor& memory) {
  return {{path, size, 0, DType::fp32}, rows.begin, rows.count, 0, 1, memory.data, 1};
}

}  // namespace

std::vector<checkpoint::Shard> Engine::checkpoint_shards() {
  RED_CHECK(options_.train, "only a training engine writes checkpoints");
  std::vector<checkpoint::Shard> result;
  const auto add = [&](const checkpoint::Shard& shard) {
    if (shard.num_rows > 0) result.push_back(shard);
  };
  for (const optim::ParameterShard& shard : shards_->shards()) {
    if (shard.owned)
      add(shard_of("parameters/" + shard.parameter->spec.name, shard.parameter->spec, shard.rows,
                   shard.weight));
  }
  for (const optim::AdafactorState& state : adafactor_->states()) {
    const model::ParameterSpec& spec = state.shard->parameter->spec;
    if (!state.factored) {
      add(shard_of("optimizer/v/" + spec.name, spec, state.shard->rows, state.v));
      continue;
    }
    add(vector_shard("optimizer/v_row/" + spec.name, spec.rows, state.shard->rows, state.v_row));
    if (mesh_.at().data == 0) {  // the same on every data rank
      add(vector_shard("optimizer/v_col/" + spec.name, spec.cols, {0, spec.cols}, state.v_col));
    }
  }
  return result;
}

std::map<std::string, std::string> Engine::checkpoint_extra() const {
  return {{"updates", fmt::format("{:.0f}", *updates_.as<double>())}};
}

void Engine::load(const checkpoint::Reader& reader, bool optimizer_state) {
  for (const model::StoredParameter& p : store_.parameters()) {
    reader.read(shard_of("parameters/" + p.spec.name, p.spec, {0, p.spec.rows}, p.weight.value));
  }
  if (!optimizer_state) return;
  const auto& extra = reader.metadata().extra;
  const auto updates = extra.find("updates");
  if (updates == extra.end()) throw DataError("checkpoint: the count of optimizer updates is missing");
  *updates_.as<double>() = std::stod(updates->second);
  for (const optim::AdafactorState& state : adafactor_->states()) {
    const model::ParameterSpec& spec = state.shard->parameter->spec;
    if (state.factored) {
      reader.read(vector_shard("optimizer/v_row/" + spec.name, spec.rows, state.shard->rows, state.v_row));
      reader.read(vector_shard("optimizer/v_col/" + spec.name, spec.cols, {0, spec.cols}, state.v_col));
    } else {
      reader.read(shard_of("optimizer/v/" + spec.name, spec, state.shard->rows, state.v));
    }
  }
}

}  // namespace red::train
