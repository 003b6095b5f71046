// redllm generate: continues prompts with a checkpoint's model.
#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <sstream>

#include "config/command_line.hpp"
#include "eval/generate.hpp"
#include "launch/commands.hpp"
#include "launch/ranks.hpp"
#include "launch/trained_model.hpp"
#include "train/precision.hpp"
#include "train/run_options.hpp"

namespace red::launch {
namespace {

config::CommandSpec spec() {
  return {.name = "generate",
          .usage = "--checkpoint DIR --prompt TEXT",
          .summary =
              "Continues each prompt and prints the continuation. A RedLLM reads the prompt in its encoder "
              "and writes\n"
              "in its decoder; a DecLLM goes on behind the prompt. Every token is a forward pass over all "
              "tokens so\n"
              "far; there is no cache yet.",
          .options = {{"checkpoint", "DIR", "a checkpoint, or a run's folder: its newest (required)", false},
                      {"prompt", "TEXT", "a prompt", true},
                      {"prompt-file", "FILE", "a file that is one prompt", true},
                      {"max-tokens", "N", "new tokens per prompt at most (default 64)", false},
                      {"temperature", "X", "of sampling; 0 takes the likeliest token (default 0)", false},
                      {"top-k", "N", "sample from the N likeliest tokens (default 0: all)", false},
                      {"top-p", "X", "sample from the likeliest tokens that reach probability X (default 1)",
                       false},
                      {"seed", "N", "of sampling (default 1)", false}},
          .takes_config = true,
          .example =
              "build/release/redllm generate --checkpoint runs/mine --prompt 'In the beginning' "
              "--temperature 0.8"};
}

std::vector<std::string> prompts_of(const config::CommandLine& line) {
  std::vector<std::string> prompts = line.get_all("prompt");
  for (const std::string& file : line.get_all("prompt-file")) {
    std::ifstream in(file, std::ios::binary);
    std::ostringstream text;
    text << in.rdbuf();
    if (!in || text.str().empty()) throw DataError("--prompt-file {}: cannot be read, or is empty", file);
    prompts.push_back(text.str());
  }
  if (prompts.empty()) throw ConfigError("generate needs --prompt TEXT or --prompt-file FILE");
  return prompts;
}

int generate_on(const Ranks& ranks, config::RunConfig config, const std::filesystem::path& checkpoint,
                const config::CommandLine& line) {
  config.train.precision =
      train::settle_precision(config.train.precision, std::nullopt, ranks.world, ranks.stream);
  const data::Tokenizer tokenizer = load_tokenizer(config);
  std::vector<std::vector<int32_t>> prompts;
  int64_t longest = 1;
  for (const std::string& text : prompts_of(line)) {
    prompts.push_back(tokenizer.encode(text));
    if (prompts.back().empty()) throw DataError("a prompt is empty: give some text");
    longest = std::max(longest, static_cast<int64_t>(prompts.back().size()));
  }
  eval::GenerationConfig generation;
  generation.max_tokens = line.get_integer("max-tokens", 64, 1, 1 << 20);
  generation.sampling = {line.get_number("temperature", 0.0, 0.0, 1e6),
                         line.get_integer("top-k", 0, 0, 1 << 30), line.get_number("top-p", 1.0, 0.0, 1.0),
                         static_cast<uint64_t>(line.get_integer("seed", 1, 0, INT64_MAX))};
  generation.start_token = tokenizer.ids().bos;
  generation.stop_tokens = {tokenizer.ids().eos, tokenizer.ids().eod};
  generation.positions = train::decoder_positions(config.model);
  const bool has_encoder = config.model.has_encoder();
  const train::SampleLengths lengths{has_encoder ? longest : 0,
                                     1 + generation.max_tokens + (has_encoder ? 0 : longest)};
  train::Engine engine(train::evaluation_options(config, lengths, static_cast<int64_t>(prompts.size()), 1),
                       ranks.mesh, ranks.stream);
  engine.load(checkpoint::Reader(checkpoint), false);
  const auto written = eval::generate(engine, ranks.stream, config.model, prompts, generation);
  if (ranks.world.rank() != 0) return 0;
  for (std::size_t i = 0; i < written.size(); ++i) {
    if (written.size() > 1) fmt::print("--- prompt {}\n", i + 1);
    fmt::print("{}\n", tokenizer.decode(written[i]));
  }
  return 0;
}

}  // namespace

int run_generate(std::span<const std::string> args) {
  const config::CommandLine line(spec(), args);
  if (line.help()) return print_help(spec());
  if (!line.has("checkpoint")) throw ConfigError("generate needs --checkpoint DIR");
  const std::filesystem::path checkpoint = find_checkpoint(line.get("checkpoint"));
  const config::Loaded loaded = load_from_checkpoint(checkpoint, line.sources());
  return run_on_ranks(
      loaded.config, [&](int num_ranks) { return layout_of_evaluation(loaded, num_ranks); },
      [&](const Ranks& ranks) { return generate_on(ranks, loaded.config, checkpoint, line); });
}

}  // namespace red::launch
