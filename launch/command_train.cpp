// redllm train: one run, from its configuration to its last step.
#include <fmt/format.h>

#include <memory>
#include <optional>

#include "base/log.hpp"
#include "base/stop_signal.hpp"
#include "config/command_line.hpp"
#include "config/print.hpp"
#include "config/validate.hpp"
#include "data/source_provider.hpp"
#include "device/backend.hpp"
#include "eval/held_out.hpp"
#include "launch/commands.hpp"
#include "launch/gpu_binding.hpp"
#include "launch/ranks.hpp"
#include "launch/trained_model.hpp"
#include "model/stage_parameters.hpp"
#include "parallel/traced_communicator.hpp"
#include "train/machine.hpp"
#include "train/memory_plan.hpp"
#include "train/precision.hpp"
#include "train/run_directory.hpp"
#include "train/run_options.hpp"
#include "train/run_session.hpp"
#include "train/step_trace.hpp"
#include "train/trainer.hpp"

namespace red::launch {
namespace {

config::CommandSpec spec() {
  return {
      .name = "train",
      .summary =
          "Trains a model from token files, or goes on with a run: train.run_dir holds its configuration,\n"
          "metrics (metrics.jsonl, and events for tensorboard --logdir) and checkpoints. Start it with one\n"
          "process per rank; ranks = parallel.data x parallel.tensor x (parallel.encoder_stages +\n"
          "parallel.decoder_stages). SIGTERM, SIGINT or SIGUSR1 to any rank: all save, and end with code 75.",
      .options = {{"resume", "WHICH",
                   "auto, must, never or the folder of a checkpoint: the same as --checkpoint.resume=WHICH",
                   false}},
      .takes_config = true,
      .example =
          "launch/local.sh -n 4 build/release/redllm train --config configs/models/red_tiny.ini \\\n"
          "  --config my_run.ini --parallel.data=2 --parallel.encoder_stages=1"};
}

/// The mesh of a run, over a communicator that writes down what goes through it where a trace is asked for.
class RunTrace {
 public:
  RunTrace(const config::RunConfig& config, const Ranks& ranks) : plain_(ranks.mesh) {
    const int64_t first = config.train.trace_step;
    if (first == 0) return;
    steps_.emplace(ranks.world, config.parallel, first, config.train.trace_steps,
                   config.train.run_dir / fmt::format("trace-step-{}.json", first));
    world_.emplace(ranks.world, steps_->log());
    mesh_.emplace(config.parallel, *world_, model::layout_limits(config.model));
  }
  train::StepTrace* steps() { return steps_ ? &*steps_ : nullptr; }
  parallel::Mesh& mesh() { return mesh_ ? *mesh_ : plain_; }

 private:
  parallel::Mesh& plain_;
  std::optional<train::StepTrace> steps_;
  std::optional<parallel::TracedCommunicator> world_;
  std::optional<parallel::Mesh> mesh_;
};

int train_on(const Ranks& ranks, config::Loaded loaded) {
  config::RunConfig& config = loaded.config;
  const auto session =
      std::make_shared<train::RunSession>(config.train.run_dir, config.parallel, ranks.world);
  ranks.environment.on_failure([session, rank = ranks.world.rank()](const parallel::Failure& failure) {
    session->end(failure.exit_code, failure.text, failure.speaker == rank);
  });
  const auto resume_from =
      train::checkpoint_to_resume(config.train.run_dir, config.checkpoint.resume, ranks.world);
  if (resume_from && config.train.gemm == "auto")
    train::keep_gemm(checkpoint::read_metadata(*resume_from), ranks.world, ranks.stream);
  config.train.precision = train::settle_precision(config.train.precision, train::precision_of(resume_from),
                                                   ranks.world, ranks.stream);
  const data::Tokenizer tokenizer = load_tokenizer(config);
  const auto provider =
      data::make_training_provider(config.data, tokenizer.ids(), config.model.has_encoder());
  for (const std::string& line : provider->describe()) log::info("{}", line);
  const ThreadPool& threads = ranks.stream.threads();
  log::info("{}, {} thread(s) per rank, {}, matrix products by {}", device_description(),
            threads.num_threads(), name_of(config.train.precision), ranks.stream.gemm().description);
  log_gpus(ranks.world);
  if (ranks.world.rank() == 0) {
    const train::SampleLengths lengths{provider->max_encoder_length(), provider->max_decoder_length()};
    log::info("{}", train::short_form(train::plan_memory(train::training_options(config, lengths),
                                                         config.parallel, threads.num_threads())));
  }
  train::TrainerInputs inputs{config,
                              config::print_effective(loaded),
                              *provider,
                              tokenizer.digest(),
                              {},
                              resume_from,
                              train::returns_so_far(config.train.run_dir, ranks.world),
                              [session](const train::RunReturn& r) { session->returned(r); },
                              [session](int64_t step) { session->step_begins(step); },
                              [session](int64_t step) { session->step_done(step); }};
  if (config.train.validate_every > 0) inputs.validate = eval::Validation(config, tokenizer.ids());
  RunTrace trace(config, ranks);
  inputs.trace = trace.steps();
  inputs.notices = &ranks.environment.channel();
  train::Trainer trainer(inputs, trace.mesh(), ranks.stream);
  session->training_begins(trainer.steps_done(), config.train.steps, resume_from);
  trainer.run();
  const ExitCode code = trainer.stopped() ? ExitCode::stopped : ExitCode::ok;
  session->end(static_cast<int>(code), trainer.stopped() ? "asked to stop by a signal: saved" : "done",
               ranks.world.rank() == 0);
  return static_cast<int>(code);
}

}  // namespace

int run_train(std::span<const std::string> args) {
  const config::CommandLine line(spec(), args);
  if (line.help()) return print_help(spec());
  config::Sources sources = line.sources();
  if (line.has("resume")) sources.overrides.emplace_back("checkpoint.resume", line.get("resume"));
  const config::Loaded loaded = config::load(sources);
  config::validate(loaded, config::kTrainUse);
  catch_stop_signals();
  return run_on_ranks(
      loaded.config, [&](int) { return loaded.config.parallel; },
      [&](const Ranks& ranks) { return train_on(ranks, loaded); },
      train::watchdog_folder(loaded.config.train.run_dir));
}

}  // namespace red::launch
