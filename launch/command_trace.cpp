// redllm trace: training steps on synthetic tokens, as `redllm bench step` runs them, written down for a
// viewer.
#include "config/command_line.hpp"
#include "data/source_provider.hpp"
#include "data/synthetic_provider.hpp"
#include "launch/commands.hpp"
#include "launch/ranks.hpp"
#include "model/stage_parameters.hpp"
#include "parallel/traced_communicator.hpp"
#include "train/batch_loader.hpp"
#include "train/engine.hpp"
#include "train/run_options.hpp"
#include "train/step_trace.hpp"

namespace red::launch {
namespace {

config::CommandSpec spec() {
  return {.name = "trace",
          .summary =
              "Runs bench.warmup_steps and then --steps training steps on synthetic tokens and writes what\n"
              "every rank did when, for ui.perfetto.dev or chrome://tracing: passes of each micro-batch,\n"
              "phases, waits, messages with arrows. For steps of a run, see train.trace_step.\n"
              "train.global_batch defaults to one micro-batch per data rank.",
          .options = {{"out", "FILE", "the trace, JSON (default trace.json)", false},
                      {"steps", "N", "of the trace (default 2)", false}},
          .takes_config = true,
          .example =
              "launch/local.sh -n 4 build/release/redllm trace --config configs/bench/red_tiny.ini \\\n"
              "  --parallel.data=2 --parallel.encoder_stages=1 --train.global_batch=16"};
}

int trace(const Ranks& ranks, const config::RunConfig& config, int64_t num_steps, const std::string& path) {
  const data::SampleLengths lengths = data::sample_lengths(config.data, config.model.has_encoder());
  const data::SyntheticProvider provider(lengths.encoder, lengths.decoder, config.model.vocab_size,
                                         config.data.seed);
  const int64_t warmup = config.bench.warmup_steps;
  train::StepTrace steps(ranks.world, config.parallel, warmup + 1, num_steps, path);
  parallel::TracedCommunicator world(ranks.world, steps.log());
  parallel::Mesh mesh(config.parallel, world, model::layout_limits(config.model));
  train::EngineOptions options = train::training_options(config, lengths);
  options.checkpoint_copy = false;  // nothing is saved
  train::Engine engine(options, mesh, ranks.stream);
  engine.trace(&steps.log());
  engine.initialize_parameters();
  train::BatchLoader loader(provider, train::decoder_positions(config.model), config.train.global_batch,
                            config.train.micro_batch, mesh.layout().data, mesh.at().data);
  constexpr double learning_rate = 1e-3;
  for (int64_t step = 1; step <= warmup + num_steps; ++step) {
    steps.begin_step(step);
    std::span<const data::MicroBatch> batches;
    engine.timer().measure(train::Phase::data, [&] {
      batches = loader.load(static_cast<uint64_t>((step - 1) * config.train.global_batch));
    });
    engine.train_step(batches, learning_rate);
    steps.end_step(step);
  }
  ranks.stream.set_progress_hook({});
  if (!steps.error().empty()) throw IoError("{}", steps.error());
  return 0;
}

}  // namespace

int run_trace(std::span<const std::string> args) {
  const config::CommandLine line(spec(), args);
  if (line.help()) return print_help(spec());
  const int64_t num_steps = line.get_integer("steps", 2, 1, 1000);
  return run_synthetic_steps(config::load(line.sources()),
                             [&](const Ranks& ranks, const config::RunConfig& config) {
                               return trace(ranks, config, num_steps, line.get("out", "trace.json"));
                             });
}

}  // namespace red::launch
