// The stages of one rank: one, or with an interleaved schedule one for each chunk of layers. They compute one
// after another, so they share temporaries and tables; each has its own slots.
#pragma once

#include <memory>
#include <vector>

#include "model/stage.hpp"

namespace red::model {

class StageGroup {
 public:
  /// options[i] is of chunks[i]. `tensor` must outlive the group.
  StageGroup(Stream& stream, const ModelConfig& config, const std::vector<parallel::StagePlacement>& chunks,
             const TensorAxis& tensor, const ParameterStore& store, const std::vector<StageOptions>& options);

  int num_chunks() const { return static_cast<int>(stages_.size()); }
  Stage& chunk(int index) { return *stages_[static_cast<std::size_t>(index)]; }
  const Stage& chunk(int index) const { return *stages_[static_cast<std::size_t>(index)]; }
  /// The one with the head or the encoder's output, where the rank has that.
  Stage& last() { return *stages_.back(); }
  const Stage& last() const { return *stages_.back(); }
  bool has_head() const { return last().placement().has_head; }

  /// Of every chunk (model/stage.hpp).
  void begin_cached(const data::MicroBatch& batch, std::span<const int32_t> places, ForwardMode mode);
  void on_layer_done(const std::function<void(const LayerOfParameter&)>& f);
  void on_weights_needed(const std::function<void(const std::optional<LayerOfParameter>&)>& f);
  /// Of all chunks.
  StageMemory memory() const;
  std::size_t scratch_bytes(int num_threads) const;

 private:
  std::vector<std::unique_ptr<Stage>> stages_;  ///< by chunk
};

}  // namespace red::model
