// redllm generate: continues prompts with a checkpoint's model.
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/log.hpp"
#include "config/command_line.hpp"
#include "eval/generate.hpp"
#include "launch/commands.hpp"
#include "launch/prompts.hpp"
#include "launch/ranks.hpp"
#include "launch/trained_model.hpp"
#include "train/memory_plan.hpp"
#include "train/precision.hpp"

namespace red::launch {
namespace {

config::CommandSpec spec() {
  config::CommandSpec spec{
      .name = "generate",
      .usage = "--checkpoint DIR --prompt TEXT",
      .summary =
          "Continues each prompt and prints the continuation. A RedLLM reads the prompt in its encoder and "
          "writes\n"
          "in its decoder; a DecLLM goes on behind the prompt. Without a layout on the command line all "
          "ranks share\n"
          "the prompts (parallel.data); continuations are the same on any ranks, to rounding. Standard error "
          "gets\n"
          "tokens/s of prompts and of new tokens.",
      .options = {{"checkpoint", "DIR", "a checkpoint, or a run's folder: its newest (required)", false}},
      .takes_config = true,
      .example =
          "build/release/redllm generate --checkpoint runs/mine --prompt 'In the beginning' "
          "--temperature 0.8\n"
          "  build/release/redllm generate --checkpoint runs/mine --prompts prompts.jsonl --json"};
  for (config::CommandOption& option : prompt_options()) spec.options.push_back(std::move(option));
  spec.options.insert(
      spec.options.end(),
      {{"max-tokens", "N", "new tokens per prompt at most (default 64)", false},
       {"batch", "N", "prompts that a data rank continues at a time; memory grows with it (default 16)",
        false},
       {"temperature", "X", "of sampling; 0 takes the likeliest token (default 0)", false},
       {"top-k", "N", "sample from the N likeliest tokens (default 0: all)", false},
       {"top-p", "X", "sample from the likeliest tokens that reach probability X, 0 < X <= 1 (default 1)",
        false},
       {"seed", "N", "of sampling; a token depends on it, the prompt's number and the token's (default 1)",
        false},
       {"json", "",
        "one JSON object per prompt and line, nothing else: prompt, continuation, tokens (its ids), "
        "finish_reason (stop: the model ended it; length: --max-tokens did), prompt_tokens, new_tokens",
        false}});
  return spec;
}

/// Everything that can be wrong without ranks is found here.
struct Request {
  std::vector<std::string> texts;
  std::vector<std::vector<int32_t>> prompts;
  eval::GenerationConfig generation;
  eval::GenerationRoom room;
};

Request read_request(const config::RunConfig& config, const data::Tokenizer& tokenizer,
                     const config::CommandLine& line) {
  Request request;
  eval::GenerationConfig& generation = request.generation;
  generation.max_tokens = line.get_integer("max-tokens", 64, 1, 1 << 20);
  generation.sampling = {line.get_number("temperature", 0.0, 0.0, 1e6),
                         line.get_integer("top-k", 0, 0, 1 << 30), line.get_number("top-p", 1.0, 0.0, 1.0),
                         static_cast<uint64_t>(line.get_integer("seed", 1, 0, INT64_MAX))};
  eval::validate(generation.sampling);
  generation.start_token = tokenizer.ids().bos;
  generation.stop_tokens = {tokenizer.ids().eos, tokenizer.ids().eod};
  generation.positions = train::decoder_positions(config.model);
  generation.bidirectional_input = !config.model.has_encoder() && config.data.bidirectional_input;
  request.room = {line.get_integer("batch", 16, 1, 1 << 20), 1, generation.max_tokens};
  request.texts = read_prompts(line);
  // As the model was trained.
  const bool ends_input = config.data.samples == data::SampleKind::pairs && config.data.end_input;
  for (const std::string& text : request.texts) {
    request.prompts.push_back(tokenizer.encode(text));
    if (ends_input) request.prompts.back().push_back(tokenizer.ids().eos);
    request.room.longest_prompt =
        std::max(request.room.longest_prompt, static_cast<int64_t>(request.prompts.back().size()));
  }
  return request;
}

void warn_of_long_sequences(const config::RunConfig& config, const eval::GenerationRoom& room) {
  const int64_t positions = room.longest_prompt + room.max_tokens;
  const bool pairs = config.data.samples == data::SampleKind::pairs;
  const int64_t longest = pairs ? config.data.input_length + config.data.target_length : config.data.window;
  if (positions > longest)
    log::warning("prompt and continuation take up to {} tokens; the model was trained on {} of up to {}",
                 positions, pairs ? "pairs" : "windows", longest);
}

void report(const eval::Generation& result) {
  const auto rate = [](int64_t tokens, double seconds) {
    return seconds > 0.0 ? static_cast<double>(tokens) / seconds : 0.0;
  };
  log::info(
      "prompts: {} tokens in {:.3f} s, {:.1f} tokens/s; new tokens behind the first: {} in {:.3f} s, {:.1f} "
      "tokens/s",
      result.prompt_tokens, result.prefill_s, rate(result.prompt_tokens, result.prefill_s),
      result.decoded_tokens, result.decode_s, rate(result.decoded_tokens, result.decode_s));
}

void print(const Request& request, const eval::Generation& result, const data::Tokenizer& tokenizer,
           bool as_json) {
  for (std::size_t i = 0; i < result.tokens.size(); ++i) {
    const std::string text = tokenizer.decode(result.tokens[i]);
    if (as_json) {
      const auto num_new = static_cast<int64_t>(result.tokens[i].size());
      const nlohmann::ordered_json json = {
          {"prompt", request.texts[i]},
          {"continuation", text},
          {"tokens", result.tokens[i]},
          {"finish_reason", num_new < request.generation.max_tokens ? "stop" : "length"},
          {"prompt_tokens", request.prompts[i].size()},
          {"new_tokens", num_new}};
      // Sampling may cut a character in two.
      fmt::print("{}\n", json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
      continue;
    }
    if (result.tokens.size() > 1) fmt::print("--- prompt {}\n", i + 1);
    fmt::print("{}\n", text);
  }
}

int generate_on(const Ranks& ranks, config::RunConfig config, const std::filesystem::path& checkpoint,
                const data::Tokenizer& tokenizer, Request request, bool as_json) {
  config.train.precision =
      train::settle_precision(config.train.precision, std::nullopt, ranks.world, ranks.stream);
  const auto data = static_cast<int64_t>(ranks.mesh.layout().data);
  const int64_t most = (static_cast<int64_t>(request.prompts.size()) + data - 1) / data;
  request.room.sequences = std::min(request.room.sequences, most);
  warn_of_long_sequences(config, request.room);
  train::Engine engine(eval::generation_options(config, request.room), ranks.mesh, ranks.stream);
  log::info("key-value cache: {} sequences, {} on this rank", request.room.sequences,
            train::bytes_text(engine.memory().cache));
  engine.load(checkpoint, false);
  const eval::Generation result =
      eval::generate(engine, ranks.stream, config.model, request.prompts, request.generation);
  if (ranks.world.rank() != 0) return 0;
  print(request, result, tokenizer, as_json);
  report(result);
  return 0;
}

}  // namespace

int run_generate(std::span<const std::string> args) {
  const config::CommandLine line(spec(), args);
  if (line.help()) return print_help(spec());
  if (!line.has("checkpoint")) throw ConfigError("generate needs --checkpoint DIR");
  const std::filesystem::path checkpoint = find_checkpoint(line.get("checkpoint"));
  const config::Loaded loaded = load_from_checkpoint(checkpoint, line.sources());
  const data::Tokenizer tokenizer = load_tokenizer(loaded.config);
  const Request request = read_request(loaded.config, tokenizer, line);
  return run_on_ranks(
      loaded.config, [&](int num_ranks) { return layout_of_evaluation(loaded, num_ranks); },
      [&](const Ranks& ranks) {
        return generate_on(ranks, loaded.config, checkpoint, tokenizer, request, line.has("json"));
      });
}

}  // namespace red::launch
