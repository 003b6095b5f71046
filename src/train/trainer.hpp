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
#include "train/metrics_writer.hpp"
#include "train/progress.hpp"
#include "train/run_checkpoints.hpp"
#include "train/run_options.hpp"
#include "train/step_report.hpp"

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
};

class Trainer {
 public:
  /// Builds the engine; loads the checkpoint to go on from, or takes the parameters of
  /// checkpoint.initialize_from, or makes initial ones.
  /// Collective. Throws ConfigError when the checkpoint does not fit the configuration.
  Trainer(const TrainerInputs& inputs, parallel::Mesh& mesh, Stream& stream);

  /// Throws NumericalError after too many steps in a row that were not finite, CheckpointError after too many
  /// saves that failed, or when the last one did.
  void run();

  /// Loss of the last step, nats per target, z-loss included.
  double last_loss() const { return last_loss_; }
  /// Whether run() ended early, because a rank was asked to stop (base/stop_signal): all is saved.
  bool stopped() const { return stopped_; }

 private:
  void start_or_resume();
  void start();
  void train_step(int64_t step);
  bool logs(int64_t step) const;
  bool validates(int64_t step) const;
  void validate(StepMetrics& metrics);
  void report_skipped(const StepMetrics& metrics);
  void count_skipped(int64_t step, bool applied);
  void save(int64_t step);
  uint64_t first_sample(int64_t step) const;

  const TrainerInputs inputs_;
  const config::RunConfig& config_;
  parallel::Mesh& mesh_;
  Engine engine_;
  BatchLoader loader_;
  optim::ScheduleConfig schedule_;
  int64_t first_step_ = 0;     ///< steps done when this process started
  uint64_t first_sample_ = 0;  ///< the next sample then
  int64_t steps_done_ = 0;
  int64_t last_saved_ = -1;
  int64_t skipped_in_a_row_ = 0;
  double last_loss_ = 0.0;
  bool stopped_ = false;
  std::optional<double> validation_loss_;  ///< of the last step, where it was taken; mean over sources
  std::unique_ptr<StepReport> report_;
  std::unique_ptr<MetricsWriter> metrics_;  ///< rank 0
  std::unique_ptr<Progress> progress_;
  std::unique_ptr<RunCheckpoints> checkpoints_;  ///< last: it writes what the engine copied
};

}  // namespace red::train
