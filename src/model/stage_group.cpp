#include "model/stage_group.hpp"

#include <algorithm>

namespace red::model {

StageGroup::StageGroup(Stream& stream, const ModelConfig& config,
                       const std::vector<parallel::StagePlacement>& chunks, const TensorAxis& tensor,
                       const ParameterStore& store, const std::vector<StageOptions>& options)
    : stages_(chunks.size()) {
  RED_CHECK(!chunks.empty() && chunks.size() == options.size(), "chunks {} options {}", chunks.size(),
            options.size());
  for (std::size_t i = chunks.size(); i-- > 0;) {
    Stage* lender = i + 1 == chunks.size() ? nullptr : stages_.back().get();
    stages_[i] = std::make_unique<Stage>(stream, config, chunks[i], tensor, store, options[i], lender);
  }
}

void StageGroup::begin_cached(const data::MicroBatch& batch, std::span<const int32_t> places,
                              ForwardMode mode) {
  for (const auto& stage : stages_) stage->begin_cached(batch, places, mode);
}

void StageGroup::on_layer_done(const std::function<void(const LayerOfParameter&)>& f) {
  for (const auto& stage : stages_) stage->on_layer_done(f);
}

void StageGroup::on_weights_needed(const std::function<void(const std::optional<LayerOfParameter>&)>& f) {
  for (const auto& stage : stages_) stage->on_weights_needed(f);
}

StageMemory StageGroup::memory() const {
  StageMemory sum;
  for (const auto& stage : stages_) {
    const StageMemory memory = stage->memory();
    sum.slots += memory.slots;
    sum.recomputed += memory.recomputed;
    sum.work += memory.work;
    sum.logits += memory.logits;
    sum.rope += memory.rope;
    sum.cache += memory.cache;
  }
  return sum;
}

std::size_t StageGroup::scratch_bytes(int num_threads) const {
  std::size_t most = 0;
  for (const auto& stage : stages_) most = std::max(most, stage->scratch_bytes(num_threads));
  return most;
}

}  // namespace red::model
