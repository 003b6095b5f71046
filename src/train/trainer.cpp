#include "train/trainer.hpp"

#include <chrono>

#include "base/log.hpp"
#include "base/stop_signal.hpp"
#include "optim/learning_rate.hpp"
#include "train/event_file.hpp"
#include "train/metrics_file.hpp"
#include "train/run_directory.hpp"

namespace red::train {
namespace {

SampleLengths lengths_of(const data::SampleProvider& provider) {
  return {provider.max_encoder_length(), provider.max_decoder_length()};
}

double seconds_since(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

std::unique_ptr<MetricsWriter> open_metrics(const std::filesystem::path& run_dir, int64_t last_step) {
  std::vector<std::unique_ptr<MetricsSink>> sinks;
  sinks.push_back(std::make_unique<MetricsFile>(run_dir / "metrics.jsonl", last_step));
  sinks.push_back(std::make_unique<EventFile>(run_dir, last_step));
  return std::make_unique<MetricsWriter>(std::move(sinks));
}

}  // namespace

Trainer::Trainer(const TrainerInputs& inputs, parallel::Mesh& mesh, Stream& stream)
    : inputs_(inputs),
      config_(inputs.config),
      mesh_(mesh),
      engine_(training_options(config_, lengths_of(inputs.provider)), mesh, stream),
      loader_(inputs.provider, decoder_positions(config_.model), config_.train.global_batch,
              config_.train.micro_batch, mesh.layout().data, mesh.at().data),
      schedule_(schedule_of(config_)) {
  RED_CHECK(config_.train.validate_every == 0 || inputs_.validate, "no validation, but every {} steps",
            config_.train.validate_every);
  start_or_resume();
  report_ = std::make_unique<StepReport>(engine_, config_.model, stream);
  if (report_->peak_gflops() > 0.0)
    log::info("peak of all ranks, measured in {}: {:.1f} GFLOP/s", name_of(engine_.dtype()),
              report_->peak_gflops());
  progress_ = std::make_unique<Progress>(config_.train.steps, mesh_.world().rank() == 0);
  checkpoints_ = std::make_unique<RunCheckpoints>(config_, engine_, stream, mesh_.world(),
                                                  [this] { progress_->end_line(); });
}

void Trainer::start_or_resume() {
  prepare_run_directory(config_.train.run_dir, inputs_.configuration, mesh_.world());
  const auto& checkpoint = inputs_.resume_from;
  if (!checkpoint) return start();
  const checkpoint::Reader reader(*checkpoint,
                                  checkpoint::Check::nothing);  // it was verified when it was chosen
  check_resume(reader.metadata(), config_, inputs_.tokenizer_digest, *checkpoint);
  check_contents(reader.metadata(), inputs_.provider, *checkpoint);
  engine_.load(reader, true);
  steps_done_ = first_step_ = reader.metadata().step;
  first_sample_ = reader.metadata().sample_cursor;
  last_saved_ = steps_done_;
  log::info("resuming {} at step {}, written by {}", checkpoint->string(), steps_done_,
            reader.metadata().layout);
}

void Trainer::start() {
  std::string from = "initial ones";
  if (config_.checkpoint.initialize_from.empty()) {
    engine_.initialize_parameters();
  } else {
    const std::filesystem::path checkpoint =
        checkpoint_to_initialize_from(config_.checkpoint.initialize_from);
    const checkpoint::Reader reader(checkpoint);
    check_initialization(reader.metadata(), config_, inputs_.tokenizer_digest, checkpoint);
    engine_.load(reader, config_.checkpoint.keep_optimizer_state);
    from =
        fmt::format("those of {} at step {}, optimizer state {}", checkpoint.string(), reader.metadata().step,
                    config_.checkpoint.keep_optimizer_state ? "continued" : "reset");
  }
  log::info("starting at step 0: {} parameters, {}, {}", model::num_parameters(config_.model), from,
            mesh_.layout().to_string());
}

/// Samples are counted, not steps: a resume goes on behind the last sample even with another global batch.
uint64_t Trainer::first_sample(int64_t step) const {
  return first_sample_ + static_cast<uint64_t>((step - 1 - first_step_) * config_.train.global_batch);
}

void Trainer::run() {
  if (steps_done_ >= config_.train.steps) {
    log::info("the run is at step {} already, train.steps is {}: nothing to do", steps_done_,
              config_.train.steps);
    return;
  }
  if (mesh_.world().rank() == 0) metrics_ = open_metrics(config_.train.run_dir, steps_done_);
  for (int64_t step = steps_done_ + 1; step <= config_.train.steps && !stopped_; ++step) {
    train_step(step);
    steps_done_ = step;
    checkpoints_->at_step_boundary();
    if (config_.checkpoint.every > 0 && step % config_.checkpoint.every == 0) save(step);
  }
  if (stopped_ && steps_done_ == config_.train.steps) stopped_ = false;  // there was nothing left to stop
  if (stopped_) {
    progress_->end_line();
    log::info("asked to stop: saving step {} of {}", steps_done_, config_.train.steps);
  }
  if (last_saved_ != steps_done_) save(steps_done_);
  checkpoints_->finish();
}

void Trainer::train_step(int64_t step) {
  const auto begin = std::chrono::steady_clock::now();
  validation_loss_.reset();
  std::span<const data::MicroBatch> batches;
  engine_.timer().measure(Phase::data, [&] { batches = loader_.load(first_sample(step)); });
  const double rate = optim::learning_rate(schedule_, step);
  if (stop_signal() != 0) engine_.ask_to_stop();
  const StepResult result = engine_.train_step(batches, rate);
  const double seconds = seconds_since(begin);
  last_loss_ = result.loss;
  stopped_ = result.stop;
  if (logs(step) || validates(step) || !result.applied) {
    StepMetrics metrics = report_->gather(batches, result, seconds, loader_.digest());
    metrics.step = step;
    metrics.learning_rate = rate;
    metrics.first_sample = first_sample(step);
    metrics.wall_time =
        std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
    if (!result.applied)
      metrics.skipped_samples =
          list_samples(inputs_.provider, metrics.first_sample, config_.train.global_batch);
    progress_->show(metrics);
    if (!result.applied) report_skipped(metrics);
    if (validates(step)) validate(metrics);
    if (metrics_) metrics_->push(std::move(metrics));
  } else {
    engine_.timer().clear();
  }
  count_skipped(step, result.applied);
}

bool Trainer::logs(int64_t step) const {
  return step % config_.train.log_every == 0 || step == config_.train.steps;
}

bool Trainer::validates(int64_t step) const {
  const int64_t every = config_.train.validate_every;
  return every > 0 && (step % every == 0 || step == config_.train.steps);
}

void Trainer::validate(StepMetrics& metrics) {
  const auto begin = std::chrono::steady_clock::now();
  metrics.validation = inputs_.validate(engine_);
  metrics.validation_s = seconds_since(begin);
  engine_.timer().clear();  // what it measured belongs to no step
  std::string losses;
  double sum = 0.0;
  for (const ValidationLoss& v : metrics.validation) sum += v.loss;
  validation_loss_ = sum / static_cast<double>(metrics.validation.size());
  for (const ValidationLoss& v : metrics.validation)
    losses += fmt::format("{} {:.4f} ({} windows), ", v.source, v.loss, v.windows);
  progress_->end_line();
  log::info("step {}: validation loss of {}in {:.2f} s", metrics.step, losses, metrics.validation_s);
}

void Trainer::report_skipped(const StepMetrics& metrics) {
  progress_->end_line();
  const uint64_t last = metrics.first_sample + static_cast<uint64_t>(config_.train.global_batch) - 1;
  log::warning("step {} is skipped: loss {}, gradient norm {}; nothing is changed; samples {} to {}: {}",
               metrics.step, metrics.result.loss, metrics.result.gradient_norm, metrics.first_sample, last,
               to_text(metrics.skipped_samples));
}

/// The same on all ranks, because the verdict on a step is.
void Trainer::count_skipped(int64_t step, bool applied) {
  skipped_in_a_row_ = applied ? 0 : skipped_in_a_row_ + 1;
  if (skipped_in_a_row_ <= config_.train.max_skipped_steps) return;
  checkpoints_->finish_before_failure();
  // Nobody ends the run before rank 0 has written and said which steps these were.
  parallel::Request request = mesh_.world().barrier();
  mesh_.world().wait(request, "the end of a run that is not finite");
  throw NumericalError(
      "{} steps in a row were not finite, the last is step {} (train.max_skipped_steps = {}): lower "
      "schedule.peak, look at the samples (skipped_samples in {}), or resume from an earlier checkpoint of "
      "{}",
      skipped_in_a_row_, step, config_.train.max_skipped_steps,
      (config_.train.run_dir / "metrics.jsonl").string(), checkpoints_dir(config_.train.run_dir).string());
}

void Trainer::save(int64_t step) {
  checkpoint::Metadata metadata;
  metadata.step = step;
  metadata.sample_cursor = first_sample(step + 1);
  metadata.configuration = inputs_.configuration;
  metadata.layout = mesh_.layout().to_string();
  metadata.tokenizer_digest = inputs_.tokenizer_digest;
  metadata.validation_loss = validation_loss_;
  metadata.extra = engine_.checkpoint_extra();
  add_contents(inputs_.provider, metadata.extra);
  checkpoints_->save(metadata);
  last_saved_ = step;
}

}  // namespace red::train
