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

std::vector<Layer> make_layers(const ParameterStore& store, const ModelConfig& config,
                               const TensorAxis& tensor, const DropoutConfig& dropout, const char* stack,
                               int64_t begin, int64_t end, LayerKind kind) {
  std::vector<Layer> layers;
  layers.reserve(end - begin);
  for (int64_t i = begin; i < end; ++i)
    layers.emplace_back(store, config, tensor, dropout, layer_prefix(stack, i), kind);
  return layers;
}

void check_token(int32_t id, int64_t vocabulary, const char* what) {
  RED_CHECK(id >= 0 && id < vocabulary, "{} {} is outside the vocabulary of {}", what, id, vocabulary);
}

}  // namespace

Stage::Stage(Stream& stream, const ModelConfig& config, const parallel::StagePlacement& placement,
             const TensorAxis& tensor, const ParameterStore& store, const StageOptions& options,
             Stage* lender)
    : stream_(stream),
      config_(config),
      placement_(placement),
      tensor_(tensor),
      options_(options),
      dtype_(store.dtype()),
      workspace_(lender != nullptr
                     ? lender->workspace_
                     : std::make_shared<Workspace>(Workspace{
                           {options.max_positions, config.head_dim, config.rope_base, options.memory}})),
      work_(workspace_->work),
      context_{stream_, config_, workspace_->rope},
      encoder_(make_layers(store, config, tensor, options.dropout, "encoder", placement.encoder_begin,
                           placement.encoder_end, LayerKind::encoder)),
      decoder_(make_layers(store, config, tensor, options.dropout, "decoder", placement.decoder_begin,
                           placement.decoder_end,
                           config.has_encoder() ? LayerKind::decoder_with_memory : LayerKind::decoder)),
      encoder_embedding_dropout_(options.dropout, "encoder.embedding"),
      decoder_embedding_dropout_(options.dropout, "decoder.embedding"),
      encoder_final_dropout_(options.dropout, "encoder.final_norm"),
      slots_(options.num_slots),
      borrows_work_(lender != nullptr) {
  RED_CHECK(options.recompute == Recompute::none || !options.split_backward,
            "recomputation keeps nothing for a backward pass that runs apart");
  if (placement.holds_embedding()) embedding_ = &store.find("embedding.weight");
  if (placement.has_encoder_final_norm) encoder_final_gain_ = &store.weight("encoder.final_norm.gain");
  if (placement.has_head)
    head_.emplace(store, config, tensor, options.dropout, options.head_chunk, options.z_loss);
  allocate_slots();
  allocate_cache();
  if (lender == nullptr) allocate_work();
}

void Stage::load(int index, const data::MicroBatch& batch) {
  Slot& slot = slots_[index];
  const BatchShape shape = BatchShape::of(batch), &most = options_.capacity;
  RED_CHECK(shape.sequences <= most.sequences && shape.encoder_tokens <= most.encoder_tokens &&
                shape.decoder_tokens <= most.decoder_tokens,
            "a micro-batch of {} sequences, {} + {} tokens in a stage for {}, {} + {}", shape.sequences,
            shape.encoder_tokens, shape.decoder_tokens, most.sequences, most.encoder_tokens,
            most.decoder_tokens);
  for (const int32_t id : batch.encoder.ids) check_token(id, config_.vocab_size, "encoder token");
  for (const int32_t id : batch.decoder.ids) check_token(id, config_.vocab_size, "decoder token");
  for (std::size_t i = 0; i < batch.targets.size(); ++i) {
    if (batch.loss_mask[i] != 0) check_token(batch.targets[i], config_.vocab_size, "target");
  }
  slot.arena.release_to(0);
  slot.d_memory_arrived = false;
  slot.batch = to_device(stream_, slot.arena, batch);
  allocate_slot(slot, shape);
}

void Stage::begin_step() {
  ops::fill(stream_, loss_sums_, 0.0F);
}

ForwardScratch Stage::scratch_for(int64_t tokens) const {
  return {workspace_->scratch.normed.row_range(0, tokens), workspace_->scratch.branch.row_range(0, tokens),
          workspace_->scratch.hidden.row_range(0, tokens)};
}

StreamGradient Stage::stream_gradient(int64_t tokens) const {
  const int64_t own = tensor_.num_local(tokens);
  return {workspace_->stream_gradient.now.row_range(0, own),
          workspace_->stream_gradient.next.row_range(0, own)};
}

void Stage::embed(const Tensor& x, const DeviceSequences& sequences, const DropoutSite& dropout) {
  const bool shared = tensor_.sequence_parallel();
  const Tensor full = shared ? workspace_->scratch.branch.row_range(0, sequences.num_tokens) : x;
  ops::embedding_gather(stream_, full, embedding_->weight.value, sequences.ids, embedding_->region.row_begin);
  tensor_.leave(full);
  dropout.drop(context_, tensor_, sequences, x, tensor_.local(full));
}

void Stage::embed_backward(const Tensor& d_x, const DeviceSequences& sequences, const DropoutSite& dropout) {
  const Tensor room = tensor_.sequence_parallel() || dropout.exists()
                          ? workspace_->scratch.branch.row_range(0, sequences.num_tokens)
                          : Tensor{};
  const Tensor d_full = gather_result_gradient(context_, tensor_, dropout, sequences, room, d_x);
  ops::embedding_scatter_add(stream_, embedding_->weight.gradient, d_full, sequences.ids,
                             embedding_->region.row_begin);
}

void Stage::forward(int index, ForwardMode mode) {
  RED_CHECK(options_.train || mode != ForwardMode::train, "the stage was built for evaluation");
  Slot& slot = slots_[index];
  context_.training = mode == ForwardMode::train;
  context_.generating = mode == ForwardMode::prefill || mode == ForwardMode::decode;
  say_needed(std::nullopt);
  if (placement_.has_encoder_part() && mode != ForwardMode::decode) forward_encoder(slot, mode);
  if (placement_.has_decoder_part()) forward_decoder(slot, mode);
}

void Stage::begin_cached(const data::MicroBatch& batch, std::span<const int32_t> places, ForwardMode mode) {
  if (!placement_.has_decoder_part()) return;
  RED_CHECK(cache_.has_value(), "the stage was built without a cache");
  mode == ForwardMode::prefill ? cache_->begin_prefill(stream_, batch, places)
                               : cache_->begin_decode(stream_, places);
}

LayerCache Stage::cache_of(std::size_t layer, ForwardMode mode) const {
  const bool cached = mode == ForwardMode::prefill || mode == ForwardMode::decode;
  return cached ? cache_->layer(layer) : LayerCache{};
}

/// The stream's value, where the stack goes on at the next stage.
void Stage::finish_stack(const ResidualStream& stream, const Tensor& output) {
  ops::add(stream_, output, stream.x, stream.branch);
}

void Stage::forward_encoder(Slot& slot, ForwardMode mode) {
  ForwardScratch scratch = scratch_for(slot.shape.encoder_tokens);
  if (placement_.has_encoder_embedding) {
    embed(slot.encoder_input, slot.batch.encoder, encoder_embedding_dropout_);
  }
  ResidualStream stream{slot.encoder_input, {}};
  for (std::size_t i = 0; i < encoder_.size(); ++i) {
    say_needed(layer_at(Stack::encoder, i));
    encoder_[i].forward(context_, {slot.batch, {}, {}}, slot.encoder[i], scratch, stream,
                        mode == ForwardMode::train);
  }
  if (placement_.has_encoder_final_norm) {
    begin_block(context_, stream, slot.final_x, slot.own_memory, slot.final_inv_rms,
                encoder_final_gain_->value);
    slot.final_x = stream.x;
    encoder_final_dropout_.drop(context_, tensor_, slot.batch.encoder, slot.own_memory, slot.own_memory);
  } else {
    finish_stack(stream, slot.encoder_output);
  }
}

void Stage::forward_decoder(Slot& slot, ForwardMode mode) {
  ForwardScratch scratch = scratch_for(slot.shape.decoder_tokens);
  const bool needs_memory = !slot.memory.empty() && mode != ForwardMode::decode;
  if (needs_memory && !borrows_memory()) tensor_.enter(slot.memory);
  if (placement_.has_decoder_embedding) {
    embed(slot.decoder_input, slot.batch.decoder, decoder_embedding_dropout_);
  }
  ResidualStream stream{slot.decoder_input, {}};
  for (std::size_t i = 0; i < decoder_.size(); ++i) {
    say_needed(layer_at(Stack::decoder, i));
    decoder_[i].forward(context_, {slot.batch, slot.memory, {}, cache_of(i, mode)}, slot.decoder[i], scratch,
                        stream, mode == ForwardMode::train);
  }
  if (!placement_.has_head) {
    finish_stack(stream, slot.decoder_output);
  } else if (mode == ForwardMode::train || mode == ForwardMode::score) {
    head_->forward(context_, slot.batch, slot.head, scratch.normed, work_, stream, loss_sums_,
                   slot.log_probability, mode == ForwardMode::train);
  } else {
    head_->normalise(context_, slot.batch, slot.head, scratch.normed, stream);
  }
}

void Stage::backward(int index, bool last) {
  Slot& slot = slots_[index];
  if (placement_.has_decoder_part()) backward_decoder(slot, false, last);
  if (placement_.has_encoder_part()) backward_encoder(slot, false, last);
}

void Stage::backward_input(int index) {
  RED_CHECK(options_.split_backward, "the stage was built for backward passes in one");
  Slot& slot = slots_[index];
  if (placement_.has_decoder_part()) backward_decoder(slot, true, false);
  if (placement_.has_encoder_part()) backward_encoder(slot, true, false);
}

void Stage::backward_weight(int index, bool last) {
  RED_CHECK(options_.split_backward, "the stage was built for backward passes in one");
  Slot& slot = slots_[index];
  for (std::size_t i = decoder_.size(); i-- > 0;) {
    decoder_[i].backward_weight(context_, {slot.batch, slot.memory, {}}, slot.decoder[i],
                                slot.decoder_kept[i], work_);
    if (last) say_done(Stack::decoder, i);
  }
  for (std::size_t i = encoder_.size(); i-- > 0;) {
    encoder_[i].backward_weight(context_, {slot.batch, {}, {}}, slot.encoder[i], slot.encoder_kept[i], work_);
    if (last) say_done(Stack::encoder, i);
  }
}

LayerOfParameter Stage::layer_at(Stack stack, std::size_t layer) const {
  const int64_t first = stack == Stack::encoder ? placement_.encoder_begin : placement_.decoder_begin;
  return {stack, first + static_cast<int64_t>(layer)};
}

void Stage::say_done(Stack stack, std::size_t layer) const {
  if (layer_done_) layer_done_(layer_at(stack, layer));
}

void Stage::say_needed(const std::optional<LayerOfParameter>& layer) const {
  if (weights_needed_) weights_needed_(layer);
}

Tensor Stage::memory_gradient_part(int index) {
  Slot& slot = slots_[index];
  return slot.d_memory_arrived ? d_memory_part_.row_range(0, slot.d_own_memory.rows) : slot.d_own_memory;
}

void Stage::add_memory_gradient_part(int index) {
  Slot& slot = slots_[index];
  if (slot.d_memory_arrived)
    ops::add(stream_, slot.d_own_memory, slot.d_own_memory,
             d_memory_part_.row_range(0, slot.d_own_memory.rows));
  slot.d_memory_arrived = true;
}

void Stage::borrow_memory(int index, const Slot& first_chunk) {
  slots_[index].memory = first_chunk.memory;
}

const Tensor& Stage::stack_input(const Slot& slot) const {
  return placement_.has_encoder_part() ? slot.encoder_input : slot.decoder_input;
}

Tensor Stage::activation_arrival(int64_t tokens) const {
  return workspace_->activation.row_range(0, tensor_.num_local(tokens));
}

Tensor Stage::memory_arrival(int64_t encoder_tokens) const {
  return workspace_->memory.row_range(0, tensor_.num_local(encoder_tokens));
}

void Stage::take_arrived_activation(int index) {
  const Tensor& input = stack_input(slots_[index]);
  ops::copy(stream_, input, workspace_->activation.row_range(0, input.rows));
}

void Stage::take_arrived_memory(int index) {
  const Tensor& memory = slots_[index].own_memory;
  ops::copy(stream_, memory, workspace_->memory.row_range(0, memory.rows));
}

void Stage::take_activation(int index, const Slot& before) {
  ops::copy(stream_, stack_input(slots_[index]),
            placement_.has_encoder_part() ? before.encoder_output : before.decoder_output);
}

void Stage::hand_gradient_back(int index, const Slot& before) {
  const bool encoder = placement_.has_encoder_part();
  ops::copy(stream_, encoder ? before.d_encoder_output : before.d_decoder_output,
            encoder ? slots_[index].d_encoder_input : slots_[index].d_decoder_input);
}

void Stage::backward_layer(Stack stack, std::size_t i, Slot& slot, bool split, StreamGradient& gradient) {
  const bool encoder = stack == Stack::encoder;
  const Layer& layer = (encoder ? encoder_ : decoder_)[i];
  Layer::Saved& saved = (encoder ? slot.encoder : slot.decoder)[i];
  const LayerBatch batch{slot.batch, encoder ? Tensor{} : slot.memory, encoder ? Tensor{} : slot.d_memory};
  if (split) {
    const Layer::Kept& kept = (encoder ? slot.encoder_kept : slot.decoder_kept)[i];
    return layer.backward_input(context_, batch, saved, kept, work_, gradient);
  }
  ForwardScratch scratch = scratch_for(encoder ? slot.shape.encoder_tokens : slot.shape.decoder_tokens);
  layer.recompute(context_, batch, saved, recompute_of(i), scratch);
  layer.backward(context_, batch, saved, work_, gradient);
}

void Stage::backward_decoder(Slot& slot, bool split, bool last) {
  StreamGradient gradient = stream_gradient(slot.shape.decoder_tokens);
  if (placement_.has_head) {
    head_->backward(context_, slot.batch, slot.head, gradient.now);
  } else {
    ops::copy(stream_, gradient.now, slot.d_decoder_output);
  }
  if (!slot.d_memory.empty()) ops::fill(stream_, slot.d_memory, 0.0F);
  for (std::size_t i = decoder_.size(); i-- > 0;) {
    backward_layer(Stack::decoder, i, slot, split, gradient);
    if (last) say_done(Stack::decoder, i);
  }
  if (!slot.d_memory.empty()) tensor_.leave(slot.d_memory);
  if (placement_.has_decoder_embedding) {
    embed_backward(gradient.now, slot.batch.decoder, decoder_embedding_dropout_);
  } else {
    ops::copy(stream_, slot.d_decoder_input, gradient.now);
  }
}

void Stage::backward_encoder(Slot& slot, bool split, bool last) {
  StreamGradient gradient = stream_gradient(slot.shape.encoder_tokens);
  if (placement_.has_encoder_final_norm) {
    Tensor d_memory = slot.d_own_memory;
    if (dtype_ != d_memory.dtype) {
      d_memory = workspace_->scratch.normed.row_range(0, d_memory.rows);
      ops::copy(stream_, d_memory, slot.d_own_memory);
    }
    encoder_final_dropout_.drop(context_, tensor_, slot.batch.encoder, d_memory, d_memory);
    ops::rms_norm_backward_gain(stream_, encoder_final_gain_->gradient, d_memory, slot.final_x,
                                slot.final_inv_rms);
    ops::rms_norm_backward_input(stream_, gradient.now, {}, d_memory, slot.final_x, slot.final_inv_rms,
                                 encoder_final_gain_->value);
  } else {
    ops::copy(stream_, gradient.now, slot.d_encoder_output);
  }
  for (std::size_t i = encoder_.size(); i-- > 0;) {
    backward_layer(Stack::encoder, i, slot, split, gradient);
    if (last) say_done(Stack::encoder, i);
  }
  if (placement_.has_encoder_embedding) {
    embed_backward(gradient.now, slot.batch.encoder, encoder_embedding_dropout_);
  } else {
    ops::copy(stream_, slot.d_encoder_input, gradient.now);
  }
}

void Stage::logits_of(const Tensor& out, const Tensor& normed) {
  RED_CHECK(head_.has_value(), "this stage has no head");
  if (tensor_.size() > 1) ops::fill(stream_, out, 0.0F);
  head_->logits(context_, out.col_range(head_->first_column(), head_->num_columns()), normed);
  tensor_.sum(out);  // each logit from the rank that has it, zeros from the others
}

void Stage::logits(const Tensor& out, int64_t first_token) {
  logits_of(out, workspace_->scratch.normed.row_range(first_token, out.rows));
}

void Stage::last_logits(const Tensor& out) {
  RED_CHECK(cache_.has_value(), "the stage was built without a cache");
  const Tensor last = workspace_->scratch.branch.row_range(0, out.rows);
  ops::embedding_gather(stream_, last, workspace_->scratch.normed, cache_->last_tokens());
  logits_of(out, last);
}

bool Stage::attention_probabilities(const Tensor& out, int index, AttentionKind kind, int64_t layer,
                                    int64_t sequence, int64_t head, int64_t first_row) {
  Slot& slot = slots_[index];
  const bool encoder = kind == AttentionKind::encoder_self, cross = kind == AttentionKind::cross;
  const int64_t local = layer - (encoder ? placement_.encoder_begin : placement_.decoder_begin);
  const Layer& l = (encoder ? encoder_ : decoder_).at(local);
  const Layer::Saved& saved = (encoder ? slot.encoder : slot.decoder).at(local);
  const AttentionBlock& block = cross ? l.cross_attention().value() : l.self_attention();
  const AttentionBlock::Saved& s = cross ? saved.cross : saved.self;
  if (head < block.first_head() || head >= block.first_head() + block.num_heads()) return false;
  ops::attention_probabilities(stream_, out, s.q, s.k, s.lse, block.layout(slot.batch),
                               block.mask(slot.batch), sequence, head - block.first_head(), first_row);
  return true;
}

}  // namespace red::model
