#include "train/trainer.hpp"

#include <algorithm>
#include <chrono>

#include "base/log.hpp"
#include "base/stop_signal.hpp"
#include "base/watch.hpp"
#include "checkpoint/choose.hpp"
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

void log_peak(const Peak& peak, DType dtype) {
  if (peak.measured_gflops > 0.0)
    log::info("peak of all ranks, measured in {}: {:.1f} GFLOP/s", name_of(dtype), peak.measured_gflops);
  if (peak.stated_gflops > 0.0)
    log::info("peak of all ranks' GPUs, as stated for {}, dense: {:.1f} GFLOP/s, which mfu is a share of",
              name_of(dtype), peak.stated_gflops);
  if (!peak.why_not_stated.empty()) log::info("no mfu: {}", peak.why_not_stated);
}

constexpr const char* kRecentLosses = "recent losses";

}  // namespace

Trainer::Trainer(const TrainerInputs& inputs, parallel::Mesh& mesh, Stream& stream)
    : inputs_(inputs),
      config_(inputs.config),
      mesh_(mesh),
      engine_(training_options(config_, lengths_of(inputs.provider)), mesh, stream),
      loader_(inputs.provider, decoder_positions(config_.model), config_.train.global_batch,
              config_.train.micro_batch, mesh.layout().data, mesh.at().data),
      schedule_(schedule_of(config_)),
      returns_(inputs_.returns),
      left_out_(config_.data.skip_samples),
      guard_({config_.train.max_skipped_steps, config_.train.spike_threshold, config_.train.spike_window,
              config_.train.spike_steps}) {
  RED_CHECK(config_.train.validate_every == 0 || inputs_.validate, "no validation, but every {} steps",
            config_.train.validate_every);
  if (inputs_.trace != nullptr) engine_.trace(&inputs_.trace->log());
  start_or_resume();
  if (!left_out_.empty()) log::info("samples that are passed over: {}", left_out_.to_string());
  report_ = std::make_unique<StepReport>(engine_, config_.model, stream);
  log_peak(report_->peak(), engine_.dtype());
  progress_ = std::make_unique<Progress>(config_.train.steps, mesh_.world().rank() == 0);
  const auto before_log = [this] { progress_->end_line(); };
  stragglers_ = std::make_unique<StragglerWatch>(engine_, config_.train.straggler_every, before_log);
  checkpoints_ =
      std::make_unique<RunCheckpoints>(config_, engine_, stream, mesh_.world(), before_log, inputs_.notices);
}

void Trainer::start_or_resume() {
  prepare_run_directory(config_.train.run_dir, inputs_.configuration, mesh_.world());
  left_out_.add(returns_.left_out);
  const auto& checkpoint = inputs_.resume_from;
  if (!checkpoint) return start();
  const checkpoint::Reader reader(*checkpoint,
                                  checkpoint::Check::nothing);  // it was verified when it was chosen
  check_resume(reader.metadata(), config_, inputs_.tokenizer_digest, *checkpoint);
  check_contents(reader.metadata(), inputs_.provider, *checkpoint);
  go_on_from(reader);
  // Not before all above went well: a start that is refused changes nothing.
  checkpoint::go_back_to_together(checkpoints_dir(config_.train.run_dir), *checkpoint, steps_done_,
                                  mesh_.world());
  log::info("resuming {} at step {}, written by {}", checkpoint->string(), steps_done_,
            reader.metadata().layout);
}

void Trainer::go_on_from(const checkpoint::Reader& reader) {
  engine_.load(reader, true);
  steps_done_ = reader.metadata().step;
  next_sample_ = reader.metadata().sample_cursor;
  last_saved_ = steps_done_;
  returns_.left_out.add(left_out_of(reader.metadata()));
  left_out_.add(returns_.left_out);
  const auto losses = reader.metadata().extra.find(kRecentLosses);
  guard_.restore(losses == reader.metadata().extra.end() ? std::string() : losses->second);
}

void Trainer::start() {
  std::string from = "initial ones";
  if (config_.checkpoint.initialize_from.empty()) {
    engine_.initialize_parameters();
  } else {
    const std::filesystem::path checkpoint =
        checkpoint_to_initialize_from(config_.checkpoint.initialize_from);
    const checkpoint::Metadata metadata = checkpoint::read_metadata(checkpoint);
    check_initialization(metadata, config_, inputs_.tokenizer_digest, checkpoint);
    engine_.load(checkpoint, config_.checkpoint.keep_optimizer_state);
    from = fmt::format("those of {} at step {}, optimizer state {}", checkpoint.string(), metadata.step,
                       config_.checkpoint.keep_optimizer_state ? "continued" : "reset");
  }
  log::info("starting at step 0: {} parameters, {}, {}", model::num_parameters(config_.model), from,
            mesh_.layout().to_string());
}

void Trainer::run() {
  if (steps_done_ >= config_.train.steps) {
    log::info("the run is at step {} already, train.steps is {}: nothing to do", steps_done_,
              config_.train.steps);
    return;
  }
  if (mesh_.world().rank() == 0) metrics_ = open_metrics(config_.train.run_dir, steps_done_);
  watch::Activity activity("training");
  while (steps_done_ < config_.train.steps && !stopped_) {
    const int64_t step = steps_done_ + 1;
    watch::at_step(step);
    if (inputs_.step_begins) inputs_.step_begins(step);
    if (inputs_.trace != nullptr) inputs_.trace->begin_step(step);
    const bool right = train_step(step);
    if (inputs_.trace != nullptr) inputs_.trace->end_step(step);
    if (!right) continue;
    steps_done_ = step;
    activity.now({"saving"});
    if (inputs_.step_done) inputs_.step_done(step);
    checkpoints_->at_step_boundary();
    if (config_.checkpoint.every > 0 && step % config_.checkpoint.every == 0) save(step);
  }
  if (inputs_.trace != nullptr) inputs_.trace->finish();
  if (stopped_ && steps_done_ == config_.train.steps) stopped_ = false;  // there was nothing left to stop
  if (stopped_) {
    progress_->end_line();
    log::info("asked to stop: saving step {} of {}", steps_done_, config_.train.steps);
  }
  if (last_saved_ != steps_done_) save(steps_done_);
  checkpoints_->finish();
}

bool Trainer::train_step(int64_t step) {
  const auto begin = std::chrono::steady_clock::now();
  const double waited_before = mesh_.world().wait_seconds();
  validation_loss_.reset();
  watch::Activity activity("reading samples");
  std::span<const data::MicroBatch> batches;
  // Samples are counted, not steps: a resume goes on behind the last one even with another global batch.
  const uint64_t first_sample = left_out_.at(next_sample_, 0);
  engine_.timer().measure(Phase::data, [&] { batches = loader_.load(first_sample, left_out_); });
  activity.now({"gradients and update"});
  const double rate = optim::learning_rate(schedule_, step);
  if (stop_signal() != 0) engine_.ask_to_stop();
  const StepResult result = engine_.train_step(batches, rate);
  activity.now({"metrics"});
  const double seconds = seconds_since(begin);
  last_loss_ = result.loss;
  stopped_ = result.stop;
  next_sample_ = left_out_.behind(first_sample, static_cast<uint64_t>(config_.train.global_batch));
  stragglers_->add(step, batches, seconds, mesh_.world().wait_seconds() - waited_before);
  if (logs(step) || validates(step) || !result.applied) {
    StepMetrics metrics = report_->gather(batches, result, seconds, loader_.digest());
    metrics.step = step;
    metrics.learning_rate = rate;
    metrics.first_sample = first_sample;
    metrics.wall_time =
        std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
    if (!result.applied)
      metrics.skipped_samples =
          list_samples(inputs_.provider, first_sample, config_.train.global_batch, left_out_);
    stragglers_->describe(metrics);
    progress_->show(metrics);
    if (!result.applied) report_skipped(metrics);
    const bool lost = metrics.gpu && metrics.gpu->lost_ranks > 0;
    if (validates(step) && !lost) validate(metrics);
    if (metrics_) metrics_->push(std::move(metrics));
    if (lost) end_without_gpu(step);
  } else {
    engine_.timer().clear();
  }
  return judge(step, result);
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
  const watch::Activity activity("validation");
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
  log::warning("step {} is skipped: loss {}, gradient norm {}; nothing is changed; samples {} to {}: {}",
               metrics.step, metrics.result.loss, metrics.result.gradient_norm, metrics.first_sample,
               next_sample_ - 1, to_text(metrics.skipped_samples));
}

/// The same on all ranks, because the loss of a step and whether it was applied are.
bool Trainer::judge(int64_t step, const StepResult& result) {
  const LossGuard::Verdict verdict = guard_.add(result.loss, result.applied);
  const bool not_finite = verdict == LossGuard::Verdict::too_many_not_finite;
  if (!not_finite && verdict != LossGuard::Verdict::spike) return true;
  engine_.complete_weights();  // the run may end here
  if (config_.train.spike_threshold > 0.0 && go_back(step)) return false;
  if (not_finite) end_not_finite(step);
  guard_.forget();
  return true;
}

std::string Trainer::what_was_wrong() const {
  if (guard_.limit() < guard_.high()) {
    return fmt::format(
        "losses up to {:.4f} in {} steps in a row, where {:.4f} is high (median {:.4f} of {} before + {} x "
        "{:.4f})",
        guard_.high(), guard_.in_a_row(), guard_.limit(), guard_.median(), config_.train.spike_window,
        config_.train.spike_threshold, guard_.spread());
  }
  return fmt::format("{} steps in a row were not finite", guard_.in_a_row());
}

/// The order matters where the run dies in between: the return is known only when nothing newer than its
/// checkpoint is there to go on from; until then the run would come by the same steps again.
bool Trainer::go_back(int64_t step) {
  const std::filesystem::path& run_dir = config_.train.run_dir;
  const int64_t most_steps = step - guard_.in_a_row() - config_.train.spike_back;
  const std::string reason = what_was_wrong();
  progress_->end_line();
  checkpoints_->finish_before_failure();
  if (returns_.count >= config_.train.max_returns) {
    parallel::Request request = mesh_.world().barrier();
    mesh_.world().wait(request, "the end of a run that went back too often");
    throw NumericalError(
        "step {}: {}, and the run has gone back {} times already (train.max_returns): lower schedule.peak, "
        "or look at the samples that were left out, {}",
        step, reason, returns_.count, returns_.left_out.to_string());
  }
  const auto checkpoint = return_to_checkpoint(run_dir, most_steps, mesh_.world());
  if (!checkpoint) {
    log::warning("step {}: {}; there is no checkpoint of {} steps or fewer to go back to", step, reason,
                 std::max<int64_t>(0, most_steps));
    return false;
  }
  const auto batch = static_cast<uint64_t>(config_.train.global_batch);
  const uint64_t first = left_out_.before(next_sample_, static_cast<uint64_t>(step - most_steps) * batch);
  const data::SampleRanges bad = left_out_.outside(first, next_sample_ - 1);
  const checkpoint::Reader reader(*checkpoint, checkpoint::Check::nothing);  // verified when it was chosen
  ++returns_.count;
  returns_.left_out.add(bad);
  log::warning(
      "step {}: {}; going back to step {}, without samples {} of steps {} to {} (return {} of at most {})",
      step, reason, reader.metadata().step, bad.to_string(), most_steps + 1, step, returns_.count,
      config_.train.max_returns);
  if (inputs_.returned) inputs_.returned({seconds_since_1970(), step, reader.metadata().step, bad, reason});
  metrics_.reset();
  go_on_from(reader);
  if (mesh_.world().rank() == 0) metrics_ = open_metrics(run_dir, steps_done_);
  return true;
}

void Trainer::end_not_finite(int64_t step) {
  checkpoints_->finish_before_failure();
  // Nobody ends the run before rank 0 has written and said which steps these were.
  parallel::Request request = mesh_.world().barrier();
  mesh_.world().wait(request, "the end of a run that is not finite");
  throw NumericalError(
      "{} steps in a row were not finite, the last is step {} (train.max_skipped_steps = {}): lower "
      "schedule.peak, look at the samples (skipped_samples in {}), or resume from an earlier checkpoint of "
      "{}",
      guard_.in_a_row(), step, config_.train.max_skipped_steps,
      (config_.train.run_dir / "metrics.jsonl").string(), checkpoints_dir(config_.train.run_dir).string());
}

void Trainer::end_without_gpu(int64_t step) {
  checkpoints_->finish_before_failure();
  metrics_.reset();  // what is queued is written
  parallel::Request written = mesh_.world().barrier();
  mesh_.world().wait(written, "the metrics of a run that lost a GPU");
  if (!report_->loss_of_gpu().empty())
    throw GpuLostError(fmt::format("step {}: {}", step, report_->loss_of_gpu()));
  parallel::Request end = mesh_.world().barrier();
  mesh_.world().wait(end, "the end of a run that lost a GPU");  // which comes from the rank that lost it
}

void Trainer::save(int64_t step) {
  checkpoint::Metadata metadata;
  metadata.step = step;
  metadata.sample_cursor = next_sample_;
  metadata.configuration = inputs_.configuration;
  metadata.layout = mesh_.layout().to_string();
  metadata.tokenizer_digest = inputs_.tokenizer_digest;
  metadata.validation_loss = validation_loss_;
  metadata.extra = engine_.checkpoint_extra();
  add_contents(inputs_.provider, metadata.extra);
  add_left_out(returns_.left_out, metadata.extra);
  if (config_.train.spike_threshold > 0.0) metadata.extra[kRecentLosses] = guard_.state();
  checkpoints_->save(metadata);
  last_saved_ = step;
}

}  // namespace red::train
