// What of an engine goes into a checkpoint, and how it comes back: logical names and global rows only, so
// that any layout reads what any other wrote.
#include "train/checkpoint_shards.hpp"
#include "train/engine.hpp"

namespace red::train {

std::vector<checkpoint::Shard> Engine::checkpoint_shards() {
  RED_CHECK(options_.train, "only a training engine writes checkpoints");
  return written_shards(shards_->shards(), adafactor_->states(),
                        {mesh_.layout().data, mesh_.at().data, mesh_.at().tensor});
}

std::map<std::string, std::string> Engine::checkpoint_extra() const {
  return {{"updates", fmt::format("{:.0f}", *scalars_.updates.as<double>())}};
}

void Engine::load(const checkpoint::Reader& reader, bool optimizer_state) {
  for (const model::StoredParameter& p : store_.parameters()) {
    reader.read(shard_of("parameters/" + p.spec.name, p, {0, p.region.num_rows}, p.weight.value));
  }
  if (!optimizer_state) return;
  const auto& extra = reader.metadata().extra;
  const auto updates = extra.find("updates");
  if (updates == extra.end()) throw DataError("checkpoint: the count of optimizer updates is missing");
  *scalars_.updates.as<double>() = std::stod(updates->second);
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
