// What of an engine goes into a checkpoint, and how it comes back: logical names and global rows only, so
// that any layout reads what any other wrote.
#include <algorithm>

#include "ops/elementwise.hpp"
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

namespace {

std::string path_of(const model::StoredParameter& parameter) {
  return "parameters/" + parameter.spec.name;
}

/// All rows that this rank holds; rounded where they are held as bf16.
void read_rows(const checkpoint::Reader& reader, const model::StoredParameter& p, Stream& stream) {
  const Tensor& value = p.weight.value;
  if (value.dtype == DType::fp32) return reader.read(shard_of(path_of(p), p, {0, value.rows}, value));
  constexpr int64_t block_elements = int64_t{1} << 22;
  const int64_t block = std::clamp<int64_t>(block_elements / value.cols, 1, value.rows);
  Arena arena("parameters as they are read", static_cast<std::size_t>(block * value.cols) * sizeof(float));
  const Tensor exact = arena.allocate(block, value.cols);
  for (int64_t begin = 0; begin < value.rows; begin += block) {
    const int64_t count = std::min(block, value.rows - begin);
    reader.read(shard_of(path_of(p), p, {begin, count}, exact.row_range(0, count)));
    ops::copy(stream, value.row_range(begin, count), exact.row_range(0, count));
  }
}

}  // namespace

void Engine::load(const checkpoint::Reader& reader, bool optimizer_state) {
  if (shards_) {
    for (const optim::ParameterShard& shard : shards_->shards())
      reader.read(shard_of(path_of(*shard.parameter), *shard.parameter, shard.rows, shard.weight));
    shards_->gather();
  } else {
    for (const model::StoredParameter& p : store_.parameters()) read_rows(reader, p, stream_);
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
