// redllm bench: its list of benchmarks, and bench step: real training steps on synthetic tokens, timed.
#include <array>
#include <chrono>
#include <optional>

#include "config/command_line.hpp"
#include "data/source_provider.hpp"
#include "data/synthetic_provider.hpp"
#include "launch/bench_comm.hpp"
#include "launch/bench_generate.hpp"
#include "launch/bench_ops.hpp"
#include "launch/commands.hpp"
#include "launch/figures.hpp"
#include "launch/median.hpp"
#include "launch/ranks.hpp"
#include "ops/attention_library.hpp"
#include "train/batch_loader.hpp"
#include "train/bubble.hpp"
#include "train/fma_peak.hpp"
#include "train/memory_plan.hpp"
#include "train/run_options.hpp"
#include "train/step_report.hpp"

namespace red::launch {
namespace {

config::CommandSpec step_spec() {
  return {.name = "bench step",
          .summary =
              "Runs bench.warmup_steps and then bench.steps whole training steps on synthetic tokens and "
              "prints the\n"
              "median time, tokens/s, model GFLOP/s (docs/flops.md), memory, seconds by phase of the slowest "
              "rank, and\n"
              "the share of their time that pipeline stages wait, beside the simulator's with the measured "
              "times.\n"
              "Two peaks of all ranks are measured: peak_gflops_per_s of a large product in the run's "
              "precision, which\n"
              "peak_share is of, and on CPUs fma_peak_gflops_per_s of fp32 multiply-adds in registers.\n"
              "train.global_batch defaults to one micro-batch per data rank.",
          .options = {device_option(), {"json", "", "one JSON object on one line", false}},
          .takes_config = true,
          .example = "build/release/redllm bench step --config configs/bench/red_tiny.ini --json"};
}

struct Measured {
  train::StepMetrics step;
  std::optional<train::Bubble> bubble;
  train::Peak peak;
  std::optional<double> fma_gflops;
};

/// Every phase, rate and share by its own median.
Measured median_of(const std::vector<Measured>& steps) {
  const auto median_by = [&](auto field) {
    std::vector<double> values;
    values.reserve(steps.size());
    for (const Measured& m : steps) values.push_back(field(m));
    return median(values);
  };
  Measured middle = steps.back();
  middle.step.step_s = median_by([](const auto& m) { return m.step.step_s; });
  middle.step.tokens_per_s = median_by([](const auto& m) { return m.step.tokens_per_s; });
  middle.step.model_gflops_per_s = median_by([](const auto& m) { return m.step.model_gflops_per_s; });
  middle.step.peak_share = median_by([](const auto& m) { return m.step.peak_share; });
  middle.step.mfu = median_by([](const auto& m) { return m.step.mfu; });
  for (std::size_t p = 0; p < middle.step.phase_s.size(); ++p)
    middle.step.phase_s[p] = median_by([p](const auto& m) { return m.step.phase_s[p]; });
  if (middle.bubble) {
    middle.bubble->measured = median_by([](const auto& m) { return m.bubble->measured; });
    middle.bubble->simulated = median_by([](const auto& m) { return m.bubble->simulated; });
  }
  return middle;
}

Measured measure(const Ranks& ranks, const config::RunConfig& config) {
  const data::SampleLengths lengths = data::sample_lengths(config.data, config.model.has_encoder());
  const data::SyntheticProvider provider(lengths.encoder, lengths.decoder, config.model.vocab_size,
                                         config.data.seed);
  train::EngineOptions options = train::training_options(config, lengths);
  options.checkpoint_copy = false;  // nothing is saved
  train::Engine engine(options, ranks.mesh, ranks.stream);
  engine.initialize_parameters();
  train::BatchLoader loader(provider, train::decoder_positions(config.model), config.train.global_batch,
                            config.train.micro_batch, ranks.mesh.layout().data, ranks.mesh.at().data);
  train::StepReport report(engine, config.model, ranks.stream);
  const std::optional<double> fma_gflops = train::fma_peak_gflops(ranks.world, ranks.stream);
  constexpr double learning_rate = 1e-3;
  std::vector<Measured> steps;
  for (int64_t i = 0; i < config.bench.warmup_steps + config.bench.steps; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    const auto batches = loader.load(static_cast<uint64_t>(i * config.train.global_batch));
    const train::StepResult result = engine.train_step(batches, learning_rate);
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    const Measured measured{report.gather(batches, result, seconds, loader.digest()),
                            train::bubble_of_last_step(engine), report.peak(), fma_gflops};
    if (i >= config.bench.warmup_steps) steps.push_back(measured);
  }
  return median_of(steps);
}

/// Of the largest rank, as redllm plan says.
double planned_mib(const config::RunConfig& config, const Ranks& ranks) {
  const data::SampleLengths lengths = data::sample_lengths(config.data, config.model.has_encoder());
  const train::MemoryPlan plan = train::plan_memory(train::training_options(config, lengths), config.parallel,
                                                    ranks.stream.threads().num_threads());
  return static_cast<double>(plan.largest().memory.total()) / (1 << 20);
}

void print(const Measured& measured, const config::RunConfig& config, const Ranks& ranks, bool as_json) {
  const train::StepMetrics& m = measured.step;
  nlohmann::ordered_json figures = figures_of_run(config, ranks);
  figures.update({{"schedule", name_of(config.pipeline_schedule)},
                  {"micro_batch", config.train.micro_batch},
                  {"global_batch", config.train.global_batch},
                  {"window", config.data.window},
                  {"steps", config.bench.steps},
                  {"step_s", m.step_s},
                  {"tokens_per_s", m.tokens_per_s},
                  {"model_gflops_per_s", m.model_gflops_per_s},
                  {"peak_share", m.peak_share},
                  {"mfu", m.mfu > 0.0 ? nlohmann::ordered_json(m.mfu) : nullptr},
                  {"peak_gflops_per_s", measured.peak.measured_gflops},
                  {"fma_peak_gflops_per_s", nullptr},
                  {"peak_rss_mib", m.peak_rss_mib},
                  {"peak_device_mib", m.peak_device_mib},
                  {"planned_mib", planned_mib(config, ranks)},
                  {"bubble", nullptr},
                  {"bubble_simulated", nullptr},
                  {"loss", m.result.loss}});
  if (measured.fma_gflops) figures["fma_peak_gflops_per_s"] = *measured.fma_gflops;
  if (measured.bubble) {
    figures["bubble"] = measured.bubble->measured;
    figures["bubble_simulated"] = measured.bubble->simulated;
  }
  if (ranks.stream.attention() == AttentionChoice::cudnn) {  // or ours, where it refuses
    figures["cudnn_passes"] = ops::attention_library_passes();
    figures["cudnn_refusal"] = ops::attention_library_refusal();
  }
  if (measured.peak.stated_gflops > 0.0) figures["stated_gflops_per_s"] = measured.peak.stated_gflops;
  if (!measured.peak.why_not_stated.empty()) figures["no_mfu"] = measured.peak.why_not_stated;
  for (std::size_t i = 0; i < m.phase_s.size(); ++i)
    figures["phase_s"][std::string(train::kPhaseNames[i])] = m.phase_s[i];
  print_figures(figures, as_json);
}

int step(std::span<const std::string> args) {
  const config::CommandLine line(step_spec(), args);
  if (line.help()) return print_help(step_spec());
  check_device(line);
  return run_synthetic_steps(config::load(line.sources()),
                             [&](const Ranks& ranks, const config::RunConfig& config) {
                               const Measured measured = measure(ranks, config);
                               if (ranks.world.rank() == 0) print(measured, config, ranks, line.has("json"));
                               return 0;
                             });
}

}  // namespace

int run_bench(std::span<const std::string> args) {
  static constexpr std::array list = {
      Command{"step", "time training steps on synthetic tokens", step},
      Command{"generate", "time prompts and new tokens on synthetic tokens", bench_generate},
      Command{"ops", "time the ops of a step one by one, beside what bounds them", bench_ops},
      Command{"comm", "time collectives and messages along the axes of a layout", bench_comm},
  };
  return dispatch("redllm bench", list, args);
}

}  // namespace red::launch
