#include "launch/bench_generate.hpp"

#include <vector>

#include "base/philox.hpp"
#include "config/command_line.hpp"
#include "config/validate.hpp"
#include "eval/generate.hpp"
#include "launch/commands.hpp"
#include "launch/figures.hpp"
#include "launch/median.hpp"
#include "train/machine.hpp"
#include "train/memory_plan.hpp"
#include "train/precision.hpp"

namespace red::launch {
namespace {

constexpr double kMiB = 1024.0 * 1024.0;

config::CommandSpec spec() {
  return {.name = "bench generate",
          .summary =
              "Continues random prompts with random parameters: bench.warmup_steps times, then bench.steps "
              "times that\n"
              "are measured. Prints medians: tokens/s of prompts (prefill) and of new tokens behind the "
              "first (decode),\n"
              "milliseconds from one token of a sequence to its next, memory of the cache and of the largest "
              "rank.",
          .options = {{"batch", "N", "prompts that a data rank continues at a time (default 1)", false},
                      {"prompt-tokens", "N", "tokens of a prompt (default 128)", false},
                      {"new-tokens", "N", "new tokens of each, 2 at least (default 64)", false},
                      device_option(),
                      {"json", "", "one JSON object on one line", false}},
          .takes_config = true,
          .example =
              "build/release/redllm bench generate --config configs/models/red_150m.ini --batch 16 --json\n"
              "  launch/local.sh -n 2 build/release/redllm bench generate --config "
              "configs/models/dec_150m.ini "
              "--parallel.tensor=2"};
}

struct Measured {
  std::vector<double> prefill_s, decode_s;
  int64_t prompt_tokens = 0, decoded_tokens = 0;  ///< of one repeat, all data ranks
  double cache_mib = 0.0;                         ///< of the rank that measured
};

std::vector<std::vector<int32_t>> random_prompts(const config::RunConfig& config, int64_t count,
                                                 int64_t num_tokens) {
  std::vector<std::vector<int32_t>> prompts(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    for (int64_t t = 0; t < num_tokens; ++t)
      prompts[i].push_back(static_cast<int32_t>(philox(config.data.seed, i, static_cast<uint64_t>(t))[0] %
                                                static_cast<uint64_t>(config.model.vocab_size)));
  }
  return prompts;
}

Measured measure(const Ranks& ranks, const config::RunConfig& config, const eval::GenerationRoom& room) {
  train::Engine engine(eval::generation_options(config, room), ranks.mesh, ranks.stream);
  engine.initialize_parameters();
  const auto prompts = random_prompts(config, room.sequences * ranks.mesh.layout().data, room.longest_prompt);
  eval::GenerationConfig generation;
  generation.max_tokens = room.max_tokens;  // no token stops it
  generation.start_token = 0;
  generation.positions = train::decoder_positions(config.model);
  generation.bidirectional_input = !config.model.has_encoder() && config.data.bidirectional_input;
  Measured measured;
  measured.cache_mib = static_cast<double>(engine.memory().cache) / kMiB;
  for (int64_t i = 0; i < config.bench.warmup_steps + config.bench.steps; ++i) {
    const eval::Generation result = eval::generate(engine, ranks.stream, config.model, prompts, generation);
    if (i < config.bench.warmup_steps) continue;
    measured.prefill_s.push_back(result.prefill_s);
    measured.decode_s.push_back(result.decode_s);
    measured.prompt_tokens = result.prompt_tokens;
    measured.decoded_tokens = result.decoded_tokens;
  }
  return measured;
}

/// The largest of all ranks. Collective.
void take_largest(const Ranks& ranks, std::span<double> values) {
  parallel::Request request = ranks.world.all_reduce(
      make_tensor(values.data(), static_cast<int64_t>(values.size()), 1), parallel::ReduceOp::max);
  ranks.world.wait(request, "memory of the other ranks");
}

int run(const Ranks& ranks, config::RunConfig config, const eval::GenerationRoom& room, bool as_json) {
  config.train.precision =
      train::settle_precision(config.train.precision, std::nullopt, ranks.world, ranks.stream);
  const Measured measured = measure(ranks, config, room);
  double memory[2] = {measured.cache_mib, train::peak_rss_mib()};
  take_largest(ranks, memory);
  if (ranks.world.rank() != 0) return 0;
  const double prefill_s = median(measured.prefill_s), decode_s = median(measured.decode_s);
  nlohmann::ordered_json figures = figures_of_run(config, ranks);
  figures.update({{"batch", room.sequences},
                  {"prompt_tokens", room.longest_prompt},
                  {"new_tokens", room.max_tokens},
                  {"steps", config.bench.steps},
                  {"prefill_s", prefill_s},
                  {"decode_s", decode_s},
                  {"prefill_tokens_per_s", static_cast<double>(measured.prompt_tokens) / prefill_s},
                  {"decode_tokens_per_s", static_cast<double>(measured.decoded_tokens) / decode_s},
                  {"ms_per_token", 1e3 * decode_s / static_cast<double>(room.max_tokens - 1)},
                  {"cache_mib", memory[0]},
                  {"peak_rss_mib", memory[1]}});
  print_figures(figures, as_json);
  return 0;
}

}  // namespace

int bench_generate(std::span<const std::string> args) {
  const config::CommandLine line(spec(), args);
  if (line.help()) return print_help(spec());
  check_device(line);
  const config::Loaded loaded = config::load(line.sources());
  config::validate(loaded, config::kModelUse);
  const eval::GenerationRoom room{line.get_integer("batch", 1, 1, 1 << 20),
                                  line.get_integer("prompt-tokens", 128, 1, 1 << 20),
                                  line.get_integer("new-tokens", 64, 2, 1 << 20)};
  return run_on_ranks(
      loaded.config, [&](int) { return loaded.config.parallel; },
      [&](const Ranks& ranks) { return run(ranks, loaded.config, room, line.has("json")); });
}

}  // namespace red::launch
