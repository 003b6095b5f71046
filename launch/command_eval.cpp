// redllm eval perplexity: how well a checkpoint predicts held-out text, per source.
#include <fmt/format.h>

#include <array>
#include <nlohmann/json.hpp>

#include "config/command_line.hpp"
#include "eval/held_out.hpp"
#include "launch/commands.hpp"
#include "launch/ranks.hpp"
#include "launch/trained_model.hpp"
#include "train/precision.hpp"
#include "train/run_options.hpp"

namespace red::launch {
namespace {

config::CommandSpec perplexity_spec() {
  return {.name = "eval perplexity",
          .usage = "--checkpoint DIR",
          .summary =
              "Perplexity of a checkpoint on the held-out token files of its sources ([data.source.NAME] "
              "held_out) and\n"
              "the average over sources. A RedLLM scores the second half of each window given the first; a "
              "DecLLM is\n"
              "reported on the same targets and on all. Runs on any number of ranks, whatever layout wrote "
              "the checkpoint.",
          .options = {{"checkpoint", "DIR", "a checkpoint, or a run's folder: its newest (required)", false},
                      {"max-windows", "N", "windows per source, from the beginning (default 0: all)", false},
                      {"micro-batch", "N", "windows per forward pass (default 8)", false},
                      {"json", "", "one JSON object instead of a table", false}},
          .takes_config = true,
          .example = "build/release/redllm eval perplexity --checkpoint runs/mine --max-windows 200"};
}

void print_table(const std::vector<eval::SourcePerplexity>& results, bool has_encoder) {
  const auto row = [&](std::string_view name, std::string_view windows, const std::array<double, 2>& nats,
                       const std::array<double, 2>& ppl) {
    fmt::print("{:<20} {:>8} {:>10.4f} {:>12.3f}", name, windows, nats[0], ppl[0]);
    if (!has_encoder) fmt::print(" {:>12.4f} {:>14.3f}", nats[1], ppl[1]);
    fmt::print("\n");
  };
  fmt::print("{:<20} {:>8} {:>10} {:>12}", "source", "windows", "nats/token", "perplexity");
  if (!has_encoder) fmt::print(" {:>12} {:>14}", "nats (all)", "perplexity (all)");
  fmt::print("\n");
  std::array<double, 2> nats{}, ppl{};
  const auto n = static_cast<double>(results.size());
  for (const eval::SourcePerplexity& r : results) {
    row(r.source, fmt::format("{}", r.windows), {r.second_half.mean(), r.all.mean()},
        {r.second_half.perplexity(), r.all.perplexity()});
    for (int i = 0; i < 2; ++i) {
      const eval::TokenLoss& loss = i == 0 ? r.second_half : r.all;
      nats[i] += loss.mean() / n;
      ppl[i] += loss.perplexity() / n;
    }
  }
  row("average", "", nats, ppl);
}

void print_json(const std::vector<eval::SourcePerplexity>& results, int64_t step) {
  nlohmann::ordered_json json;
  json["step"] = step;
  for (const eval::SourcePerplexity& r : results) {
    json["sources"][r.source] = {{"windows", r.windows},
                                 {"targets", r.second_half.count},
                                 {"nats_per_token", r.second_half.mean()},
                                 {"perplexity", r.second_half.perplexity()},
                                 {"all_targets", r.all.count},
                                 {"all_nats_per_token", r.all.mean()},
                                 {"all_perplexity", r.all.perplexity()}};
  }
  fmt::print("{}\n", json.dump());
}

int evaluate_on(const Ranks& ranks, config::RunConfig config, const std::filesystem::path& checkpoint,
                const config::CommandLine& line) {
  config.train.precision =
      train::settle_precision(config.train.precision, std::nullopt, ranks.world, ranks.stream);
  const data::Tokenizer tokenizer = load_tokenizer(config);
  const bool has_encoder = config.model.has_encoder();
  eval::PerplexityOptions options;
  options.num_late_targets = data::num_late_targets(config.data);
  options.micro_batch = line.get_integer("micro-batch", 8, 1, 1 << 16);
  options.max_windows = line.get_integer("max-windows", 0, 0, int64_t{1} << 40);
  options.positions = train::decoder_positions(config.model);
  train::Engine engine(train::evaluation_options(config, data::sample_lengths(config.data, has_encoder),
                                                 options.micro_batch, 1),
                       ranks.mesh, ranks.stream);
  engine.load(checkpoint, false);
  std::vector<eval::SourcePerplexity> results;
  for (const auto& samples : eval::open_held_out(config.data, tokenizer.ids(), has_encoder))
    results.push_back(eval::perplexity(engine, *samples, options));
  if (ranks.world.rank() != 0) return 0;
  if (line.has("json")) {
    print_json(results, checkpoint::read_metadata(checkpoint).step);
  } else {
    print_table(results, has_encoder);
  }
  return 0;
}

int perplexity(std::span<const std::string> args) {
  const config::CommandLine line(perplexity_spec(), args);
  if (line.help()) return print_help(perplexity_spec());
  if (!line.has("checkpoint")) throw ConfigError("eval perplexity needs --checkpoint DIR");
  const std::filesystem::path checkpoint = find_checkpoint(line.get("checkpoint"));
  const config::Loaded loaded = load_from_checkpoint(checkpoint, line.sources());
  return run_on_ranks(
      loaded.config, [&](int num_ranks) { return layout_of_evaluation(loaded, num_ranks); },
      [&](const Ranks& ranks) { return evaluate_on(ranks, loaded.config, checkpoint, line); });
}

}  // namespace

int run_eval(std::span<const std::string> args) {
  static constexpr std::array list = {
      Command{"perplexity", "perplexity per source on held-out text", perplexity},
      Command{"loglikelihood", "how likely continuations of contexts are", run_loglikelihood},
  };
  return dispatch("redllm eval", list, args);
}

}  // namespace red::launch
