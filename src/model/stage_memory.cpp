// What a stage allocates: everything when it is made, by the code that later hands out the pieces.
#include <algorithm>

#include "model/stage.hpp"
#include "ops/cross_entropy.hpp"
#include "ops/matmul.hpp"
#include "ops/matmul_few_rows.hpp"
#include "ops/norm.hpp"

namespace red::model {

void Stage::allocate_slots() {
  Slot measured;
  measured.arena = Arena::counting();
  Arena& recomputed = workspace_->recomputed;
  if (!borrows_work_) recomputed = Arena::counting();
  reserve_device_batch(measured.arena, options_.capacity);
  allocate_slot(measured, options_.capacity);
  if (!borrows_work_) recomputed = Arena("recomputed activations", recomputed.peak(), options_.memory);
  for (Slot& slot : slots_) {
    slot.arena = Arena("activations", measured.arena.peak(), options_.memory);
    slot.encoder.reserve(encoder_.size());
    slot.decoder.reserve(decoder_.size());
    slot.encoder_kept.reserve(encoder_.size());
    slot.decoder_kept.reserve(decoder_.size());
  }
}

void Stage::allocate_cache() {
  if (options_.cache.sequences == 0 || decoder_.empty()) return;
  cache_.emplace(options_.cache, placement_.decoder_layers(), decoder_.front().self_attention().num_heads(),
                 config_.head_dim, config_.has_encoder(), options_.capacity, dtype_, options_.memory);
}

/// The last chunk of a rank, which lends, is the largest: layers of a stack are alike, and it has what stands
/// at the end.
void Stage::allocate_work() {
  const BatchShape& shape = options_.capacity;
  const int64_t tokens = std::max(shape.encoder_tokens, shape.decoder_tokens), d = config_.d_model;
  const int64_t own_tokens = tensor_.most_local(tokens);
  const Layer& any_layer = encoder_.empty() ? decoder_.front() : encoder_.front();
  const auto allocate = [&](Arena& arena) {
    workspace_->scratch = {tensor_.allocate_full(arena, tokens, d, dtype_),
                           tensor_.allocate_full(arena, tokens, d, dtype_),
                           arena.allocate(tokens, any_layer.ffn().width(), dtype_)};
    if (options_.train)
      workspace_->stream_gradient = {arena.allocate(own_tokens, d, dtype_),
                                     arena.allocate(own_tokens, d, dtype_)};
    if (options_.train && placement_.has_encoder_final_norm && !placement_.has_decoder_part())
      d_memory_part_ = arena.allocate(tensor_.most_local(shape.encoder_tokens), d);
    if (options_.activations_arrive) workspace_->activation = arena.allocate(own_tokens, d, dtype_);
    if (options_.memory_arrives)
      workspace_->memory = arena.allocate(tensor_.most_local(shape.encoder_tokens), d, dtype_);
    loss_sums_ = arena.allocate<double>(2, 1);
  };
  Arena counted = Arena::counting();
  allocate(counted);
  if (head_) head_->reserve_logits(counted, shape.decoder_tokens);
  logits_bytes_ = counted.peak() - counted.used();
  if (options_.train) {
    for (const Layer& layer : encoder_) layer.reserve_backward(counted, shape);
    for (const Layer& layer : decoder_) layer.reserve_backward(counted, shape);
  }
  work_ = Arena("layer temporaries", counted.peak(), options_.memory);
  allocate(work_);
}

void Stage::allocate_slot(Slot& slot, const BatchShape& shape) {
  const parallel::StagePlacement& p = placement_;
  const bool train = options_.train;
  const auto allocate = [&](int64_t tokens, bool wanted) {
    return wanted ? tensor_.allocate_local(slot.arena, tokens, config_.d_model, dtype_) : Tensor{};
  };
  const bool encoder_goes_on = p.has_encoder_part() && !p.has_encoder_final_norm;
  const bool decoder_goes_on = p.has_decoder_part() && !p.has_head;
  const int64_t encoder_tokens = shape.encoder_tokens, decoder_tokens = shape.decoder_tokens;
  slot.shape = shape;
  slot.encoder_input = allocate(encoder_tokens, p.has_encoder_part());
  slot.decoder_input = allocate(decoder_tokens, p.has_decoder_part());
  slot.encoder_output = allocate(encoder_tokens, encoder_goes_on);
  slot.decoder_output = allocate(decoder_tokens, decoder_goes_on);
  slot.d_encoder_output = allocate(encoder_tokens, train && encoder_goes_on);
  slot.d_decoder_output = allocate(decoder_tokens, train && decoder_goes_on);
  slot.d_encoder_input = allocate(encoder_tokens, train && p.has_encoder_part() && !p.has_encoder_embedding);
  slot.d_decoder_input = allocate(decoder_tokens, train && p.has_decoder_part() && !p.has_decoder_embedding);
  if (config_.has_encoder() && (p.has_encoder_final_norm || p.has_decoder_part())) {
    if (!borrows_memory()) {
      slot.memory = tensor_.allocate_full(slot.arena, encoder_tokens, config_.d_model, dtype_);
      slot.own_memory = tensor_.local(slot.memory);
    }
    // The sum of many parts, so fp32.
    if (train)
      slot.d_memory = tensor_.allocate_full(slot.arena, encoder_tokens, config_.d_model, DType::fp32);
    if (train) slot.d_own_memory = tensor_.local(slot.d_memory);
  }
  if (p.has_head) {
    slot.log_probability = slot.arena.allocate(decoder_tokens, 1);
    slot.head = head_->allocate_saved(slot.arena, decoder_tokens);
  }
  if (p.has_encoder_final_norm) {
    slot.final_x = allocate(encoder_tokens, true);
    slot.final_inv_rms = tensor_.allocate_local(slot.arena, encoder_tokens, 1, DType::fp32);
  }
  allocate_layers(slot);
}

/// Without backward passes one layer's room serves all.
void Stage::allocate_layers(Slot& slot) {
  const std::size_t begin = slot.arena.used();
  const auto allocate = [&](const std::vector<Layer>& layers, std::vector<Layer::Saved>& saved,
                            std::vector<Layer::Kept>& kept) {
    saved.clear();
    kept.clear();
    for (std::size_t i = 0; i < layers.size(); ++i) {
      if (!options_.train) slot.arena.release_to(begin);
      workspace_->recomputed.release_to(0);
      const Recompute recompute = recompute_of(i);
      const Layer::Saved recomputed =
          layers[i].allocate_recomputed(workspace_->recomputed, slot.shape, recompute);
      saved.push_back(layers[i].allocate_saved(slot.arena, slot.shape, recompute, recomputed));
      if (options_.split_backward) kept.push_back(layers[i].allocate_kept(slot.arena, slot.shape));
    }
  };
  allocate(encoder_, slot.encoder, slot.encoder_kept);
  allocate(decoder_, slot.decoder, slot.decoder_kept);
}

Recompute Stage::recompute_of(std::size_t layer) const {
  const bool chosen =
      options_.recompute_layers == 0 || static_cast<int64_t>(layer) < options_.recompute_layers;
  return options_.train && chosen ? options_.recompute : Recompute::none;
}

StageMemory Stage::memory() const {
  StageMemory memory;
  for (const Slot& slot : slots_) memory.slots += slot.arena.capacity();
  if (!borrows_work_) {
    memory.recomputed = workspace_->recomputed.capacity();
    memory.work = workspace_->work.capacity();
    memory.rope = workspace_->rope.num_bytes();
  }
  memory.logits = logits_bytes_;
  if (cache_) memory.cache = cache_->num_bytes();
  return memory;
}

std::size_t Stage::scratch_bytes(int num_threads) const {
  const BatchShape& shape = options_.capacity;
  const int64_t tokens = std::max(shape.encoder_tokens, shape.decoder_tokens);
  const std::size_t row_sums = Arena::rounded(static_cast<std::size_t>(tokens) * sizeof(float));
  std::size_t most = std::max({row_sums, ops::matmul_scratch_bytes(num_threads, dtype_),
                               ops::rms_norm_scratch_bytes(tokens, config_.d_model)});
  if (options_.cache.sequences > 0) most = std::max(most, ops::few_rows_scratch_bytes(dtype_));
  if (head_) most = std::max(most, ops::cross_entropy_scratch_bytes(std::min(options_.head_chunk, tokens)));
  for (const std::vector<Layer>* layers : {&encoder_, &decoder_}) {
    if (layers->empty()) continue;  // layers of a stack are alike
    most = std::max(most, ops::attention_scratch_bytes(
                              num_threads, layers->front().self_attention().num_heads(), config_.head_dim,
                              shape.sequences, std::min(tokens, options_.max_positions), dtype_, tokens));
    if (cache_)
      most = std::max(
          most, ops::attention_scratch_bytes(
                    num_threads, layers->front().self_attention().num_heads(), config_.head_dim,
                    cache_->shape().sequences,
                    std::max(cache_->shape().decoder_positions, cache_->shape().encoder_positions), dtype_));
  }
  return most;
}

}  // namespace red::model
