// Engine: one rank's share of a model in one layout, and what moves it: stage, parameters, shards, optimizer,
// schedule. A training step is forward and backward through the pipeline, reduction of gradients over the
// data ranks, one update of this rank's rows, and the way back, which may end under the next step. Data, logs
// and checkpoints are the callers' affair.
#pragma once

#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.hpp"
#include "checkpoint/shard_copy.hpp"
#include "optim/adafactor.hpp"
#include "optim/tied_embedding.hpp"
#include "optim/whole_gradients.hpp"
#include "parallel/mesh.hpp"
#include "train/engine_options.hpp"
#include "train/memory_use.hpp"
#include "train/pipeline_executor.hpp"
#include "train/step_scalars.hpp"

namespace red::train {

/// Of a whole step, the same on every rank.
struct StepResult {
  double loss = 0.0;           ///< per target token of the global batch, z-loss included
  double cross_entropy = 0.0;  ///< nats per target token
  double gradient_norm = 0.0;  ///< global, of the mean loss, before clipping
  int64_t targets = 0;
  bool applied = true;  ///< false: something was not finite, and nothing was changed
  bool stop = false;    ///< some rank was asked to stop (Engine::ask_to_stop)
};

class Engine {
 public:
  /// Allocates everything that steps will use, and connects the stages that will talk to each other:
  /// collective over the pipeline. `mesh` and `stream` must outlive it. Parameters are zero.
  Engine(const EngineOptions& options, parallel::Mesh& mesh, Stream& stream);

  void initialize_parameters();
  /// Parameters, and with `optimizer_state` the second moments and the count of updates, of any layout's
  /// checkpoint. Collective.
  void load(const checkpoint::Reader& reader, bool optimizer_state);
  /// The same of a checkpoint that nobody has verified: what is read is compared with its checksums, by all
  /// ranks together where each reads a part. Throws DataError where something of it is damaged.
  void load(const std::filesystem::path& checkpoint, bool optimizer_state);
  /// The rectangles of logical tensors that this rank writes, in device memory, and what else the optimizer
  /// has to remember.
  std::vector<checkpoint::Shard> checkpoint_shards();
  std::map<std::string, std::string> checkpoint_extra();
  /// The same in the host memory that EngineOptions::checkpoint_copy asked for, which nobody may read any
  /// more since the last call.
  checkpoint::ShardCopy copy_checkpoint_shards();

  /// This rank would like the run to end: every rank reads so in the result of the same step, a later one.
  void ask_to_stop() { asked_to_stop_ = true; }

  /// One optimizer step on the global batch, of which `batches` is this pipeline's part; may be empty. Behind
  /// one that was applied other data ranks' updated rows may still be on their way: the next step waits for
  /// them where it uses them, and whatever else looks at weights waits for all of them.
  StepResult train_step(std::span<const data::MicroBatch> batches, double learning_rate);
  /// The same without the update; gradients stay in gradient_shards(), summed, not divided by the targets.
  StepResult gradients(std::span<const data::MicroBatch> batches, double learning_rate);

  /// Waits until all weights are there. Directly behind a step it is collective over the data ranks, and so
  /// is each call below and above that looks at weights: a caller that lets some data ranks go without calls
  /// this first.
  void complete_weights() {
    if (shards_) shards_->finish_gather();
  }

  /// Forward of one micro-batch without gradients: log-probabilities of its targets, (decoder tokens), on the
  /// stage with the head; empty elsewhere. Valid until the next call. Stages run ahead of each other by
  /// themselves.
  std::span<const float> score(const data::MicroBatch& batch);
  /// Forward of one micro-batch up to the final norm; then stages().last().logits() works on the head's
  /// stage.
  void hidden(const data::MicroBatch& batch);
  /// Generation, with the key-value cache: forward of whole prompts, and then of one new token of each
  /// sequence. Sequence b has place places[b] of the cache, 0 ... cache.sequences - 1. Behind either,
  /// stages().last().last_logits() works on the head's stage. Of a micro-batch for decode() only the
  /// decoder's ids, positions and offsets, and sample_ids, count; encoder stages do nothing.
  void prefill(const data::MicroBatch& batch, std::span<const int32_t> places);
  void decode(const data::MicroBatch& batch, std::span<const int32_t> places);

  const EngineOptions& options() const { return options_; }
  const parallel::Mesh& mesh() const { return mesh_; }
  const model::CacheShape& cache() const { return options_.cache; }
  const model::BatchShape& capacity() const { return options_.capacity; }
  DType dtype() const { return options_.dtype; }  ///< of matrices and activations
  /// One rank of each pipeline, which has the loss, speaks for the samples that went through it.
  bool speaks_for_samples() const { return stages_.has_head() && mesh_.at().tensor == 0; }
  model::StageGroup& stages() {
    complete_weights();
    return stages_;
  }
  model::ParameterStore& parameters() {
    complete_weights();
    return store_;
  }
  /// Own rows, which are always there.
  const optim::ParameterShards& shards() const { return *shards_; }
  PhaseTimer& timer() { return timer_; }
  /// Writes down what steps do when; the log must outlive the engine. Messages are the mesh's affair
  /// (parallel/traced_communicator).
  void trace(parallel::TraceLog* log) {
    timer_.trace(log);
    executor_.trace(log);
  }
  const PipelineExecutor& executor() const { return executor_; }
  /// As plan_memory() says beforehand.
  MemoryUse memory() const;

 private:
  void prepare_training();
  void allocate_checkpoint_memory();
  const parallel::Program& program(int num_micro_batches, bool train);
  void sum_over_ranks(std::span<const data::MicroBatch> batches);
  void sum_gradients(std::span<const data::MicroBatch> batches, double learning_rate);
  StepResult step_result();

  EngineOptions options_;
  parallel::Mesh& mesh_;
  Stream& stream_;
  parallel::Placement placement_;
  std::vector<parallel::StagePlacement> chunks_;  ///< of this rank
  parallel::Program step_;                        ///< training only: of max_micro_batches
  model::TensorAxis tensor_;
  model::ParameterStore store_;
  model::StageGroup stages_;
  std::unique_ptr<optim::WholeGradients> whole_gradients_;  ///< training with sequence parallelism only
  std::unique_ptr<optim::ParameterShards> shards_;          ///< training only, as the next two
  std::unique_ptr<optim::TiedEmbedding> tied_;
  std::unique_ptr<optim::Adafactor> adafactor_;
  PipelineExecutor executor_;
  parallel::Program decode_step_;  ///< with a cache only: of one micro-batch
  std::vector<std::pair<std::pair<int, bool>, parallel::Program>>
      programs_;  ///< by micro-batches and training
  Arena scalars_memory_;
  StepScalars scalars_;
  bool asked_to_stop_ = false;
  std::shared_ptr<HostBuffer> checkpoint_memory_;  ///< training with options.checkpoint_copy only
  std::vector<float> log_probability_;             ///< host copy for score()
  PhaseTimer timer_{stream_};
};

}  // namespace red::train
