#include "train/engine.hpp"

#include <algorithm>
#include <cstring>

#include "model/stage_parameters.hpp"
#include "ops/elementwise.hpp"
#include "ops/reduce.hpp"

namespace red::train {
namespace {

/// This stage's program of the largest step.
parallel::Program step_program(const EngineOptions& options, const parallel::Mesh& mesh) {
  if (!options.train) return {};
  return training_programs(options, mesh.layout())[mesh.at().stage];
}

parallel::Program decode_program(const EngineOptions& options, const parallel::Mesh& mesh) {
  if (options.cache.sequences == 0) return {};
  return parallel::decoder_only(pipeline_shape(options, mesh.layout(), 1))[mesh.at().stage];
}

}  // namespace

Engine::Engine(const EngineOptions& options, parallel::Mesh& mesh, Stream& stream)
    : options_(options),
      mesh_(mesh),
      stream_(stream),
      placement_(placement_of(options, mesh.layout())),
      chunks_(placement_.chunks_of(mesh.at().stage)),
      step_(step_program(options, mesh)),
      tensor_(mesh.tensor(), mesh.layout().sequence_parallel),
      store_(model::stage_parameters(options.model, chunks_), tensor_.at(), options.train, options.dtype),
      stages_(stream, options.model, chunks_, tensor_, store_, stage_options(options, step_)),
      executor_(stages_, pipeline_shape(options, mesh.layout(), 1), mesh.pipeline(), tensor_),
      decode_step_(decode_program(options, mesh)),
      scalars_memory_("step scalars", StepScalars::count_bytes(options.model)),
      scalars_(scalars_memory_, options.model) {
  stream.set_progress_hook([&mesh] { mesh.world().poll(); });
  stream.reserve_scratch(stages_.scratch_bytes(stream.threads().num_threads()));
  if (options.train) prepare_training();
  // Behind all else: on a GPU nothing may be allocated while ranks wait for each other.
  mesh.pipeline().connect(message_routes(options, mesh.layout()));
}

void Engine::prepare_training() {
  if (tensor_.sequence_parallel())
    whole_gradients_ = std::make_unique<optim::WholeGradients>(stream_, store_, mesh_.tensor());
  shards_ = std::make_unique<optim::ParameterShards>(stream_, store_, parallel::own_embedding(chunks_), mesh_,
                                                     options_.buckets);
  stages_.on_layer_done([this](const model::LayerOfParameter& layer) { shards_->layer_done(layer); });
  stages_.on_weights_needed([this](const auto& layer) { shards_->need(layer); });
  tied_ = std::make_unique<optim::TiedEmbedding>(stream_, shards_->embedding(), placement_.embedding_holders,
                                                 placement_.embedding_owner, mesh_.pipeline());
  adafactor_ = std::make_unique<optim::Adafactor>(stream_, options_.optimizer, *shards_, mesh_);
  stream_.reserve_scratch(adafactor_->scratch_bytes());
  if (options_.checkpoint_copy) allocate_checkpoint_memory();
}

/// Touched at once, so that no save pays for the kernel's zeroing of its pages.
void Engine::allocate_checkpoint_memory() {
  checkpoint_memory_ = std::make_shared<HostBuffer>(checkpoint::copy_bytes(checkpoint_shards()));
  constexpr std::size_t piece_bytes = std::size_t{16} << 20;
  const std::size_t num_bytes = checkpoint_memory_->num_bytes();
  stream_.parallel_for(static_cast<int64_t>((num_bytes + piece_bytes - 1) / piece_bytes), [&](int64_t piece) {
    const std::size_t begin = static_cast<std::size_t>(piece) * piece_bytes;
    std::memset(checkpoint_memory_->data() + begin, 0, std::min(piece_bytes, num_bytes - begin));
  });
}

void Engine::initialize_parameters() {
  complete_weights();
  store_.initialize(stream_, options_.model.init_seed);
  if (shards_) shards_->initialize_masters(options_.model.init_seed);
}

const parallel::Program& Engine::program(int num_micro_batches, bool train) {
  const std::pair<int, bool> key{num_micro_batches, train};
  for (const auto& [k, program] : programs_) {
    if (k == key) return program;
  }
  parallel::Program program;
  if (num_micro_batches > 0) {
    program = train ? parallel::first_micro_batches(step_, num_micro_batches)
                    : parallel::forward_only(
                          pipeline_shape(options_, mesh_.layout(), num_micro_batches))[mesh_.at().stage];
  }
  return programs_.emplace_back(key, std::move(program)).second;
}

/// scalars_.sums: what every rank adds, then the sum of all ranks.
void Engine::sum_over_ranks(std::span<const data::MicroBatch> batches) {
  ops::fill(stream_, scalars_.sums, 0.0F);
  timer_.measure(Phase::optimizer, [&] {
    for (const optim::ParameterShard& shard : shards_->shards()) {
      if (shard.counted)
        ops::sum_of_squares(stream_, scalars_.squares_of(shard.parameter->spec), shard.gradient);
    }
  });
  constexpr double one = 1.0;
  if (asked_to_stop_) copy_to_device(stream_, scalars_.sum(ops::sum_stop).data, &one, sizeof(one));
  if (speaks_for_samples()) {
    ops::copy(stream_, scalars_.sums.row_range(ops::sum_loss, 2), stages_.last().loss_sums());
    double targets = 0.0;
    for (const data::MicroBatch& batch : batches) targets += static_cast<double>(batch.num_targets);
    copy_to_device(stream_, scalars_.sum(ops::sum_targets).data, &targets, sizeof(targets));
  }
  timer_.measure(Phase::communication, [&] {
    parallel::Request request = mesh_.world().all_reduce(scalars_.sums, parallel::ReduceOp::sum);
    mesh_.world().wait(request, "all-reduce of loss and gradient norm");
  });
}

void Engine::sum_gradients(std::span<const data::MicroBatch> batches, double learning_rate) {
  RED_CHECK(static_cast<int>(batches.size()) <= options_.max_micro_batches,
            "{} micro-batches, planned for {}", batches.size(), options_.max_micro_batches);
  timer_.begin_work();
  store_.begin_gradients(stream_);
  stages_.last().begin_step();
  executor_.run(program(static_cast<int>(batches.size()), true), batches, model::ForwardMode::train, timer_);
  store_.end_gradients(stream_);
  timer_.measure(Phase::communication, [&] {
    complete_weights();  // without micro-batches there was no pass that needed them
    if (whole_gradients_) whole_gradients_->reduce();
    shards_->reduce();
    tied_->reduce();
  });
  sum_over_ranks(batches);
  ops::update_scalars(stream_, scalars_.scalars, scalars_.updates, scalars_.sums, learning_rate,
                      options_.optimizer.decay, options_.optimizer.gradient_clip);
}

/// Calls are compared before the host waits for the device: of those that do not go together one never ends.
StepResult Engine::step_result() {
  mesh_.world().compare_calls();
  double host[ops::kStepScalars];
  copy_to_host(stream_, host, scalars_.scalars.data, sizeof(host));
  stream_.synchronize();
  timer_.end_work();
  return {host[ops::scalar_loss],          host[ops::scalar_cross_entropy],
          host[ops::scalar_gradient_norm], static_cast<int64_t>(host[ops::scalar_targets]),
          host[ops::scalar_apply] != 0.0,  host[ops::scalar_stop] != 0.0};
}

StepResult Engine::gradients(std::span<const data::MicroBatch> batches, double learning_rate) {
  sum_gradients(batches, learning_rate);
  return step_result();
}

/// The host looks at the step's numbers when all its work is on its way: an update that is not to be is held
/// back by the device itself.
StepResult Engine::train_step(std::span<const data::MicroBatch> batches, double learning_rate) {
  sum_gradients(batches, learning_rate);
  timer_.measure(Phase::optimizer, [&] { adafactor_->update(scalars_.scalars); });
  timer_.measure(Phase::communication, [&] {
    tied_->share();
    shards_->begin_gather();
  });
  const StepResult result = step_result();
  if (!result.applied) complete_weights();  // it may be the run's last
  return result;
}

std::span<const float> Engine::score(const data::MicroBatch& batch) {
  complete_weights();
  executor_.run(program(1, false), {&batch, 1}, model::ForwardMode::score, timer_);
  if (!stages_.has_head()) return {};
  const Tensor& device = stages_.last().slot(0).log_probability;
  log_probability_.resize(device.rows);
  copy_to_host(stream_, log_probability_.data(), device.data, log_probability_.size() * sizeof(float));
  stream_.synchronize();
  return log_probability_;
}

void Engine::hidden(const data::MicroBatch& batch) {
  complete_weights();
  executor_.run(program(1, false), {&batch, 1}, model::ForwardMode::hidden, timer_);
}

void Engine::prefill(const data::MicroBatch& batch, std::span<const int32_t> places) {
  complete_weights();
  stages_.begin_cached(batch, places, model::ForwardMode::prefill);
  executor_.run(program(1, false), {&batch, 1}, model::ForwardMode::prefill, timer_);
}

void Engine::decode(const data::MicroBatch& batch, std::span<const int32_t> places) {
  complete_weights();
  stages_.begin_cached(batch, places, model::ForwardMode::decode);
  executor_.run(decode_step_, {&batch, 1}, model::ForwardMode::decode, timer_);
}

MemoryUse Engine::memory() const {
  const model::StageMemory stage = stages_.memory();
  MemoryUse use;
  use.parameters = store_.value_bytes();
  use.gradients = store_.gradient_bytes();
  if (shards_) use.masters = shards_->master_bytes();
  if (adafactor_) use.optimizer = adafactor_->num_bytes();
  if (shards_) use.buckets = shards_->num_bytes();
  if (whole_gradients_) use.whole_gradients = whole_gradients_->num_bytes();
  if (tied_) use.tied_embedding = tied_->num_bytes();
  use.activations = stage.slots;
  use.recomputed = stage.recomputed;
  use.temporaries = stage.work;
  use.rope = stage.rope;
  use.cache = stage.cache;
  use.scalars = scalars_memory_.capacity();
  use.op_scratch = stream_.scratch().capacity();
  if (checkpoint_memory_) use.checkpoint_copy = checkpoint_memory_->num_bytes();
  return use;
}

}  // namespace red::train
