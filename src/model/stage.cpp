#include "model/stage.hpp"

#include <algorithm>

#include "ops/elementwise.hpp"
#include "ops/embedding.hpp"
#include "ops/norm.hpp"

namespace red::model {
namespace {

std::string layer_prefix(const char* stack, int64_t layer) {
  return fmt::format("{}.layers.{}.", stack, layer);
}

std::vector<Layer> make_layers(const ParameterStore& store, const ModelConfig& config, const char* stack,
                               int64_t begin, int64_t end, LayerKind kind) {
  std::vector<Layer> layers;
  layers.reserve(end - begin);
  for (int64_t i = begin; i < end; ++i) layers.emplace_back(store, config, layer_prefix(stack, i), kind);
  return layers;
}

int64_t most_tokens(const BatchShape& shape) {
  return std::max(shape.encoder_tokens, shape.decoder_tokens);
}

}  // namespace

Stage::Stage(Stream& stream, const ModelConfig& config, const parallel::StagePlacement& placement,
             const ParameterStore& store, const StageOptions& options)
    : stream_(stream),
      config_(config),
      placement_(placement),
      options_(options),
      rope_(options.max_positions, config.head_dim, config.rope_base),
      context_{stream_, config_, rope_},
      encoder_(make_layers(store, config, "encoder", placement.encoder_begin, placement.encoder_end,
                           LayerKind::encoder)),
      decoder_(make_layers(store, config, "decoder", placement.decoder_begin, placement.decoder_end,
                           config.has_encoder() ? LayerKind::decoder_with_memory : LayerKind::decoder)),
      slots_(options.num_slots) {
  if (placement.holds_embedding()) embedding_ = &store.weight("embedding.weight");
  if (placement.has_encoder_final_norm) encoder_final_gain_ = &store.weight("encoder.final_norm.gain");
  if (placement.has_head) head_.emplace(store, config, options.head_chunk, options.z_loss);

  Slot measured;
  measured.arena = Arena::counting();
  reserve_device_batch(measured.arena, options.capacity);
  allocate_slot(measured, options.capacity);
  for (Slot& slot : slots_) {
    slot.arena = Arena("activations", measured.arena.peak());
    slot.encoder.reserve(encoder_.size());
    slot.decoder.reserve(decoder_.size());
  }

  const int64_t tokens = most_tokens(options.capacity), d = config.d_model;
  const auto allocate_work = [&](Arena& arena) {
    scratch_ = {arena.allocate(tokens, d), arena.allocate(tokens, d), arena.allocate(tokens, config.d_ff)};
    if (options.train) stream_gradient_ = {arena.allocate(tokens, d), arena.allocate(tokens, d)};
    loss_sums_ = arena.allocate<double>(2, 1);
  };
  Arena counted = Arena::counting();
  allocate_work(counted);
  if (head_) head_->reserve_logits(counted, options.capacity.decoder_tokens);
  if (options.train) {
    for (const Layer& layer : encoder_) layer.reserve_backward(counted, options.capacity);
    for (const Layer& layer : decoder_) layer.reserve_backward(counted, options.capacity);
  }
  work_ = Arena("layer temporaries", counted.peak());
  allocate_work(work_);
}

void Stage::allocate_slot(Slot& slot, const BatchShape& shape) const {
  const int64_t d = config_.d_model;
  const auto allocate = [&](int64_t tokens, bool wanted) {
    return wanted ? slot.arena.allocate(tokens, d) : Tensor{};
  };
  const parallel::StagePlacement& p = placement_;
  const bool train = options_.train;
  const bool encoder_goes_on = p.has_encoder_part() && !p.has_encoder_final_norm;
  const bool decoder_goes_on = p.has_decoder_part() && !p.has_head;
  slot.shape = shape;
  slot.encoder_input = allocate(shape.encoder_tokens, p.has_encoder_part());
  slot.decoder_input = allocate(shape.decoder_tokens, p.has_decoder_part());
  slot.encoder_output = allocate(shape.encoder_tokens, encoder_goes_on);
  slot.decoder_output = allocate(shape.decoder_tokens, decoder_goes_on);
  slot.d_encoder_output = allocate(shape.encoder_tokens, train && encoder_goes_on);
  slot.d_decoder_output = allocate(shape.decoder_tokens, train && decoder_goes_on);
  slot.d_encoder_input =
      allocate(shape.encoder_tokens, train && p.has_encoder_part() && !p.has_encoder_embedding);
  slot.d_decoder_input =
      allocate(shape.decoder_tokens, train && p.has_decoder_part() && !p.has_decoder_embedding);
  const bool has_memory = config_.has_encoder() && (p.has_encoder_final_norm || p.has_decoder_part());
  slot.memory = allocate(shape.encoder_tokens, has_memory);
  slot.d_memory = allocate(shape.encoder_tokens, train && has_memory);
  if (p.has_head) {
    slot.log_probability = slot.arena.allocate(shape.decoder_tokens, 1);
    slot.head = head_->allocate_saved(slot.arena, shape.decoder_tokens);
  }
  if (p.has_encoder_final_norm) {
    slot.final_x = allocate(shape.encoder_tokens, true);
    slot.final_inv_rms = slot.arena.allocate(shape.encoder_tokens, 1);
  }
  // Without backward passes one layer's room serves all.
  const std::size_t layers_begin = slot.arena.used();
  const auto allocate_layers = [&](const std::vector<Layer>& layers, std::vector<Layer::Saved>& saved) {
    saved.clear();
    for (const Layer& layer : layers) {
      if (!train) slot.arena.release_to(layers_begin);
      saved.push_back(layer.allocate_saved(slot.arena, shape));
    }
  };
  allocate_layers(encoder_, slot.encoder);
  allocate_layers(decoder_, slot.decoder);
}

void Stage::load(int index, const data::MicroBatch& batch) {
  Slot& slot = slots_[index];
  const BatchShape shape = BatchShape::of(batch), &most = options_.capacity;
  RED_CHECK(shape.sequences <= most.sequences && shape.encoder_tokens <= most.encoder_tokens &&
                shape.decoder_tokens <= most.decoder_tokens,
            "a micro-batch of {} sequences, {} + {} tokens in a stage for {}, {} + {}", shape.sequences,
            shape.encoder_tokens, shape.decoder_tokens, most.sequences, most.encoder_tokens,
            most.decoder_tokens);
  slot.arena.release_to(0);
  slot.batch = to_device(stream_, slot.arena, batch);
  allocate_slot(slot, shape);
}

void Stage::begin_step() {
  ops::fill(stream_, loss_sums_, 0.0F);
}

ForwardScratch Stage::scratch_for(int64_t tokens) const {
  return {scratch_.normed.row_range(0, tokens), scratch_.branch.row_range(0, tokens),
          scratch_.hidden.row_range(0, tokens)};
}

StreamGradient Stage::stream_gradient(int64_t tokens) const {
  return {stream_gradient_.now.row_range(0, tokens), stream_gradient_.next.row_range(0, tokens)};
}

void Stage::forward(int index, ForwardMode mode) {
  RED_CHECK(options_.train || mode != ForwardMode::train, "the stage was built for evaluation");
  Slot& slot = slots_[index];
  if (placement_.has_encoder_part()) forward_encoder(slot, mode);
  if (placement_.has_decoder_part()) forward_decoder(slot, mode);
}

/// The stream's value, where the stack goes on at the next stage.
void Stage::finish_stack(const ResidualStream& stream, const Tensor& output) {
  ops::add(stream_, output, stream.x, stream.branch);
}

void Stage::forward_encoder(Slot& slot, ForwardMode mode) {
  ForwardScratch scratch = scratch_for(slot.shape.encoder_tokens);
  if (placement_.has_encoder_embedding) {
    ops::embedding_gather(stream_, slot.encoder_input, embedding_->value, slot.batch.encoder.ids);
  }
  ResidualStream stream{slot.encoder_input, {}};
  for (std::size_t i = 0; i < encoder_.size(); ++i) {
    encoder_[i].forward(context_, {slot.batch, {}, {}}, slot.encoder[i], scratch, stream,
                        mode == ForwardMode::train);
  }
  if (placement_.has_encoder_final_norm) {
    begin_block(context_, stream, slot.final_x, slot.memory, slot.final_inv_rms, encoder_final_gain_->value);
    slot.final_x = stream.x;
  } else {
    finish_stack(stream, slot.encoder_output);
  }
}

void Stage::forward_decoder(Slot& slot, ForwardMode mode) {
  ForwardScratch scratch = scratch_for(slot.shape.decoder_tokens);
  if (placement_.has_decoder_embedding) {
    ops::embedding_gather(stream_, slot.decoder_input, embedding_->value, slot.batch.decoder.ids);
  }
  ResidualStream stream{slot.decoder_input, {}};
  for (std::size_t i = 0; i < decoder_.size(); ++i) {
    decoder_[i].forward(context_, {slot.batch, slot.memory, {}}, slot.decoder[i], scratch, stream,
                        mode == ForwardMode::train);
  }
  if (!placement_.has_head) {
    finish_stack(stream, slot.decoder_output);
  } else if (mode == ForwardMode::hidden) {
    head_->normalise(context_, slot.head, scratch.normed, stream);
  } else {
    head_->forward(context_, slot.batch, slot.head, scratch.normed, work_, stream, loss_sums_,
                   slot.log_probability, mode == ForwardMode::train);
  }
}

void Stage::backward(int index) {
  Slot& slot = slots_[index];
  if (placement_.has_decoder_part()) backward_decoder(slot);
  if (placement_.has_encoder_part()) backward_encoder(slot);
}

void Stage::backward_decoder(Slot& slot) {
  StreamGradient gradient = stream_gradient(slot.shape.decoder_tokens);
  if (placement_.has_head) {
    head_->backward(context_, slot.head, gradient.now);
  } else {
    ops::copy(stream_, gradient.now, slot.d_decoder_output);
  }
  if (!slot.d_memory.empty()) ops::fill(stream_, slot.d_memory, 0.0F);
  for (std::size_t i = decoder_.size(); i-- > 0;) {
    decoder_[i].backward(context_, {slot.batch, slot.memory, slot.d_memory}, slot.decoder[i], work_,
                         gradient);
  }
  if (placement_.has_decoder_embedding) {
    ops::embedding_scatter_add(stream_, embedding_->gradient, gradient.now, slot.batch.decoder.ids);
  } else {
    ops::copy(stream_, slot.d_decoder_input, gradient.now);
  }
}

void Stage::backward_encoder(Slot& slot) {
  StreamGradient gradient = stream_gradient(slot.shape.encoder_tokens);
  if (placement_.has_encoder_final_norm) {
    ops::rms_norm_backward_gain(stream_, encoder_final_gain_->gradient, slot.d_memory, slot.final_x,
                                slot.final_inv_rms);
    ops::rms_norm_backward_input(stream_, gradient.now, {}, slot.d_memory, slot.final_x, slot.final_inv_rms,
                                 encoder_final_gain_->value);
  } else {
    ops::copy(stream_, gradient.now, slot.d_encoder_output);
  }
  for (std::size_t i = encoder_.size(); i-- > 0;) {
    encoder_[i].backward(context_, {slot.batch, {}, {}}, slot.encoder[i], work_, gradient);
  }
  if (placement_.has_encoder_embedding) {
    ops::embedding_scatter_add(stream_, embedding_->gradient, gradient.now, slot.batch.encoder.ids);
  } else {
    ops::copy(stream_, slot.d_encoder_input, gradient.now);
  }
}

void Stage::logits(const Tensor& out, int64_t first_token) {
  RED_CHECK(head_.has_value(), "this stage has no head");
  head_->logits(context_, out, scratch_.normed.row_range(first_token, out.rows));
}

void Stage::attention_probabilities(const Tensor& out, int index, AttentionKind kind, int64_t layer,
                                    int64_t sequence, int64_t head, int64_t first_row) {
  Slot& slot = slots_[index];
  const bool encoder = kind == AttentionKind::encoder_self, cross = kind == AttentionKind::cross;
  const int64_t local = layer - (encoder ? placement_.encoder_begin : placement_.decoder_begin);
  const Layer& l = (encoder ? encoder_ : decoder_).at(local);
  const Layer::Saved& saved = (encoder ? slot.encoder : slot.decoder).at(local);
  const AttentionBlock& block = cross ? l.cross_attention().value() : l.self_attention();
  const AttentionBlock::Saved& s = cross ? saved.cross : saved.self;
  ops::attention_probabilities(stream_, out, s.q, s.k, s.lse, block.layout(slot.batch),
                               block.mask(slot.batch), sequence, head, first_row);
}

StageMemory Stage::memory() const {
  StageMemory memory;
  for (const Slot& slot : slots_) memory.slots += slot.arena.capacity();
  memory.work = work_.capacity();
  return memory;
}

}  // namespace red::model
