// A pipeline stage: the encoder and decoder layers of one rank, or of one chunk of them (model/stage_group),
// with what stands at their ends (embedding, final norm, loss head). It computes on one micro-batch at a
// time; each micro-batch in flight has a slot that holds its activations and the tensors that go to and come
// from other stages. Who sends what when is the schedule's affair. Shapes: S encoder tokens, T decoder tokens
// of a micro-batch, s and t own ones of the residual stream (model/tensor_axis.hpp), d model width.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "model/layer.hpp"
#include "model/loss_head.hpp"
#include "model/stage_parameters.hpp"
#include "parallel/placement.hpp"

namespace red::model {

struct StageOptions {
  bool train = true;          ///< keep activations for backward passes
  BatchShape capacity;        ///< the largest micro-batch
  int64_t max_positions = 0;  ///< rotary positions are below this
  int num_slots = 1;          ///< micro-batches in flight
  int64_t head_chunk = 512;   ///< tokens whose logits are in memory at a time
  float z_loss = 0.0F;
  DropoutConfig dropout;
  Recompute recompute = Recompute::none;
  int64_t recompute_layers = 0;  ///< of each stack, from the stage's first; 0: all
  bool split_backward = false;   ///< backward_input and backward_weight come apart: slots have room for both
  /// From other stages, for any chunk of the rank: there is room for the next one, before it has a slot.
  bool activations_arrive = false, memory_arrives = false;
  CacheShape cache;              ///< for prefill and decode; of stages with decoder layers
  Memory memory = Memory::real;  ///< counted: the stage only tells memory()
};

/// Bytes of a stage besides parameters and gradients, by what they are for.
struct StageMemory {
  std::size_t slots = 0;       ///< activations of all micro-batches in flight
  std::size_t recomputed = 0;  ///< activations of one layer that are made again
  std::size_t work = 0;        ///< temporaries of forward and backward
  std::size_t logits = 0;  ///< of `work`: one chunk's logits, in the place of the backward pass's temporaries
  std::size_t rope = 0;    ///< tables of rotary positions
  std::size_t cache = 0;   ///< keys and values of prompts and what was generated
};

enum class ForwardMode {
  train,    ///< activations kept, loss and its gradient
  score,    ///< loss and log-probabilities, nothing kept
  hidden,   ///< up to the final norm, for logits()
  prefill,  ///< hidden; keys and values of the decoder's layers go into the cache
  decode,   ///< hidden, of the decoder alone: its new tokens see what the cache holds
};

class Stage {
 public:
  /// One micro-batch in flight. Tensors are views into the slot's arena, valid until the next load().
  struct Slot {
    Arena arena;
    DeviceBatch batch;
    BatchShape shape;
    Tensor encoder_input, decoder_input;        ///< (s, d), (t, d): embedded here or received
    Tensor encoder_output, decoder_output;      ///< sent on, where the stack goes on at the next stage
    Tensor d_encoder_output, d_decoder_output;  ///< received gradients, likewise
    Tensor d_encoder_input,
        d_decoder_input;              ///< gradients sent back, where the stack began at an earlier stage
    Tensor memory, d_memory;          ///< (S, d) encoder's result, of all tokens, and its gradient; memory of
                                      ///< the rank's first decoder chunk serves the others
    Tensor own_memory, d_own_memory;  ///< (s, d) own tokens of both: what stages send each other
    bool d_memory_arrived = false;    ///< the first of several decoder stages' parts is in d_own_memory
    std::vector<Layer::Saved> encoder, decoder;
    std::vector<Layer::Kept> encoder_kept, decoder_kept;  ///< with split_backward
    Tensor final_x, final_inv_rms;                        ///< of the encoder's final norm
    LossHead::Saved head;
    Tensor log_probability;  ///< (T, 1) of the targets
  };

  /// Throws LogicError when `store` lacks a parameter of the placement. `tensor` must outlive the stage, and
  /// so must `lender`: the last chunk of the same rank, whose temporaries and tables this one uses.
  Stage(Stream& stream, const ModelConfig& config, const parallel::StagePlacement& placement,
        const TensorAxis& tensor, const ParameterStore& store, const StageOptions& options,
        Stage* lender = nullptr);
  Stage(const Stage&) = delete;
  Stage& operator=(const Stage&) = delete;

  /// Takes a micro-batch into a slot; it must fit the capacity.
  void load(int slot, const data::MicroBatch& batch);
  void forward(int slot, ForwardMode mode);
  /// Before a pass in mode prefill or decode: sequence b of `batch` has place places[b] of the cache.
  void begin_cached(const data::MicroBatch& batch, std::span<const int32_t> places, ForwardMode mode);
  /// Both passes. d_decoder_output and d_own_memory (encoder stages) must have arrived.
  void backward(int slot, bool last = false);
  /// The same in two, with split_backward. The first makes all that goes to other stages, and the gradients
  /// of gains and of the embedding, which cost little: so that of the embedding, to which the loss head adds
  /// during forward, is summed in the order that backward() has.
  void backward_input(int slot);
  void backward_weight(int slot, bool last = false);
  /// With `last`, no micro-batch comes behind this one: `f` is called for each layer, from the last one on,
  /// when its matrices' gradients are final.
  void on_layer_done(std::function<void(const LayerOfParameter&)> f) { layer_done_ = std::move(f); }
  /// `f` is called before a forward pass uses weights: first with nothing, for the embedding and whatever
  /// else is no layer's matrix, then with each layer, the encoder's before the decoder's.
  void on_weights_needed(std::function<void(const std::optional<LayerOfParameter>&)> f) {
    weights_needed_ = std::move(f);
  }

  /// Last encoder stage: where the next decoder stage's part of the gradient of the encoder's output is to be
  /// received, and what to call when it is there.
  Tensor memory_gradient_part(int slot);
  void add_memory_gradient_part(int slot);

  /// Decoder chunks but the first: the encoder's output lies in the first one's slot.
  bool borrows_memory() const { return placement_.has_decoder_part() && placement_.chunk > 0; }
  void borrow_memory(int slot, const Slot& first_chunk);
  /// Where the next activation, (s, d) or (t, d) of so many tokens of the chunk's stack, and the next
  /// encoder's output (s, d) are received before their micro-batch has a slot: one place for all chunks of
  /// the rank.
  Tensor activation_arrival(int64_t tokens) const;
  Tensor memory_arrival(int64_t encoder_tokens) const;
  /// What arrived there goes into the slot.
  void take_arrived_activation(int slot);
  void take_arrived_memory(int slot);
  /// From and to the chunk before, where it is on the same rank.
  void take_activation(int slot, const Slot& chunk_before);
  void hand_gradient_back(int slot, const Slot& chunk_before);

  Slot& slot(int index) { return slots_[index]; }
  int num_slots() const { return static_cast<int>(slots_.size()); }
  const parallel::StagePlacement& placement() const { return placement_; }

  /// (2, 1) fp64: sums of CE + z-loss and of CE over the targets since begin_step().
  const Tensor& loss_sums() const { return loss_sums_; }
  void begin_step();

  /// logits (n, V) of decoder tokens first_token ... of the micro-batch that went forward last, contiguous.
  /// Stages with the head; collective over the tensor axis, the same on its ranks.
  void logits(const Tensor& out, int64_t first_token);
  /// The same of the last token of each of n sequences, behind a pass in mode prefill or decode.
  void last_logits(const Tensor& out);
  /// Probabilities (n, keys of the sequence) for query rows first_row ... of one sequence and head, made
  /// again. False: another tensor rank holds the head.
  bool attention_probabilities(const Tensor& out, int slot, AttentionKind kind, int64_t layer,
                               int64_t sequence, int64_t head, int64_t first_row);

  StageMemory memory() const;
  /// What passes take at most from the scratch memory of a stream with so many threads.
  std::size_t scratch_bytes(int num_threads) const;

 private:
  /// What stages of a rank share, because they compute one after another.
  struct Workspace {
    ops::RopeTable rope;
    Arena recomputed{};  ///< one layer's activations that are made again, of whatever layer runs
    Arena work{};        ///< temporaries
    ForwardScratch scratch{};
    StreamGradient stream_gradient{};
    Tensor activation{}, memory{};  ///< arrivals, for the largest micro-batch
  };

  void allocate_slot(Slot& slot, const BatchShape& shape);
  void allocate_layers(Slot& slot);
  Recompute recompute_of(std::size_t layer) const;
  void allocate_slots();
  void allocate_work();
  void forward_encoder(Slot& slot, ForwardMode mode);
  void forward_decoder(Slot& slot, ForwardMode mode);
  void backward_encoder(Slot& slot, bool split, bool last);
  void backward_decoder(Slot& slot, bool split, bool last);
  void backward_layer(Stack stack, std::size_t i, Slot& slot, bool split, StreamGradient& gradient);
  LayerOfParameter layer_at(Stack stack, std::size_t layer) const;
  void say_done(Stack stack, std::size_t layer) const;
  const Tensor& stack_input(const Slot& slot) const;
  void say_needed(const std::optional<LayerOfParameter>& layer) const;
  ForwardScratch scratch_for(int64_t tokens) const;
  StreamGradient stream_gradient(int64_t tokens) const;
  void embed(const Tensor& x, const DeviceSequences& sequences, const DropoutSite& dropout);
  void embed_backward(const Tensor& d_x, const DeviceSequences& sequences, const DropoutSite& dropout);
  void allocate_cache();
  LayerCache cache_of(std::size_t layer, ForwardMode mode) const;
  void logits_of(const Tensor& out, const Tensor& normed);
  void finish_stack(const ResidualStream& stream, const Tensor& output);

  Stream& stream_;
  ModelConfig config_;
  parallel::StagePlacement placement_;
  const TensorAxis& tensor_;
  StageOptions options_;
  DType dtype_;                           ///< of activations
  std::shared_ptr<Workspace> workspace_;  ///< the lender's
  Arena& work_;
  PassContext context_;
  std::vector<Layer> encoder_, decoder_;
  const StoredParameter* embedding_ = nullptr;  ///< where ids enter
  const Weight* encoder_final_gain_ = nullptr;  ///< last encoder stage
  DropoutSite encoder_embedding_dropout_, decoder_embedding_dropout_, encoder_final_dropout_;
  std::optional<LossHead> head_;
  std::vector<Slot> slots_;
  std::optional<KvCache> cache_;
  bool borrows_work_;
  std::size_t logits_bytes_ = 0;
  std::function<void(const LayerOfParameter&)> layer_done_;
  std::function<void(const std::optional<LayerOfParameter>&)> weights_needed_;
  Tensor d_memory_part_;  ///< (s, d) last encoder stage
  Tensor loss_sums_;
};

}  // namespace red::model
