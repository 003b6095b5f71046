// A run: steps from where the newest checkpoint left off to train.steps, with metrics, progress and
// checkpoints in the run's folder. It composes; what a step is, the engine knows.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "config/run_config.hpp"
#include "train/batch_loader.hpp"
#include "train/loss_guard.hpp"
#include "train/metrics_writer.hpp"
#include "train/progress.hpp"
#include "train/run_checkpoints.hpp"
#include "train/run_log.hpp"
#include "train/run_options.hpp"
#include "train/run_returns.hpp"
#include "train/step_report.hpp"
#include "train/step_trace.hpp"
#include "train/straggler_watch.hpp"

namespace red::train {

/// What the run is made of, from the command that starts it.
struct TrainerInputs {
  const config::RunConfig& config;
  std::string configuration;  ///< effective, INI; saved with the run and with every checkpoint
  const data::SampleProvider& provider;
  std::string tokenizer_digest;
  /// Losses on held-out text with the engine's parameters, the same on every rank; collective. Needed with
  /// train.validate_every > 0.
  std::function<std::vector<ValidationLoss>(Engine&)> validate;
  /// The checkpoint to go on from, as checkpoint_to_resume() says; nothing: a new run.
  std::optional<std::filesystem::path> resume_from;
  Returns returns = {};  ///< of earlier starts
  /// Called on every rank when the run has gone back to an earlier checkpoint.
  std::function<void(const RunReturn& r)> returned = {};
  /// Called on every rank before a step.
  std::function<void(int64_t step)> step_begins = {};
  /// Called on every rank when a step is done, before anything of it is saved; what it throws ends the run.
  std::function<void(int64_t step)> step_done = {};
  StepTrace* trace = nullptr;                ///< of some steps; the mesh is then over a traced communicator
  parallel::NoticeBoard* notices = nullptr;  ///< of all ranks; tells at once of saves that fail
};

class Trainer {
 public:
  /// Builds the engine; loads the checkpoint to go on from, or takes the parameters of
  /// checkpoint.initialize_from, or makes initial ones.
  /// Collective. Throws ConfigError when the checkpoint does not fit the configuration.
  Trainer(const TrainerInputs& inputs, parallel::Mesh& mesh, Stream& stream);

  /// Throws NumericalError after too many steps in a row that were not finite, and where the run would have
  /// to go back once too often; CheckpointError after too many saves that failed, or when the last one did.
  void run();

  int64_t steps_done() const { return steps_done_; }
  /// Loss of the last step, nats per target, z-loss included.
  double last_loss() const { return last_loss_; }
  /// Whether run() ended early, because a rank was asked to stop (base/stop_signal): all is saved.
  bool stopped() const { return stopped_; }

 private:
  void start_or_resume();
  void go_on_from(const checkpoint::Reader& reader);
  void start();
  /// Whether it was right; otherwise the run has gone back.
  bool train_step(int64_t step);
  bool logs(int64_t step) const;
  bool validates(int64_t step) const;
  void validate(StepMetrics& metrics);
  void report_skipped(const StepMetrics& metrics);
  bool judge(int64_t step, const StepResult& result);
  bool go_back(int64_t step);
  std::string what_was_wrong() const;
  [[noreturn]] void end_not_finite(int64_t step);
  /// Ends the run by the rank whose GPU is lost, when the metrics that say so are written. Collective.
  void end_without_gpu(int64_t step);
  void save(int64_t step);

  const TrainerInputs inputs_;
  const config::RunConfig& config_;
  parallel::Mesh& mesh_;
  Engine engine_;
  BatchLoader loader_;
  optim::ScheduleConfig schedule_;
  Returns returns_;              ///< of all starts
  data::SampleRanges left_out_;  ///< samples that are passed over: by returns, and data.skip_samples
  LossGuard guard_;
  uint64_t next_sample_ = 0;  ///< behind the last one that a step had
  int64_t steps_done_ = 0;
  int64_t last_saved_ = -1;
  double last_loss_ = 0.0;
  bool stopped_ = false;
  std::optional<double> validation_loss_;  ///< of the last step, where it was taken; mean over sources
  std::unique_ptr<StepReport> report_;
  std::unique_ptr<StragglerWatch> stragglers_;
  std::unique_ptr<MetricsWriter> metrics_;  ///< rank 0
  std::unique_ptr<Progress> progress_;
  std::unique_ptr<RunCheckpoints> checkpoints_;  ///< last: it writes what the engine copied
};

}  // namespace red::train
