// redllm eval loglikelihood: log-likelihoods of continuations given contexts, as lm-evaluation-harness
// defines them.
#include <fmt/format.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "config/command_line.hpp"
#include "convert/huggingface_config.hpp"
#include "eval/loglikelihood.hpp"
#include "launch/commands.hpp"
#include "launch/ranks.hpp"
#include "launch/trained_model.hpp"
#include "train/precision.hpp"

namespace red::launch {
namespace {

using nlohmann::json;

config::CommandSpec spec() {
  return {
      .name = "eval loglikelihood",
      .usage = "--checkpoint DIR --requests FILE",
      .summary =
          "Scores continuations of contexts as lm-evaluation-harness does. FILE has one JSON object on each "
          "line:\n"
          "{\"context\": TEXT, \"continuation\": TEXT}, or ids as {\"context_ids\": [...], "
          "\"continuation_ids\": [...]},\n"
          "of which a DecLLM's context begins with <s>. Prints one JSON object for each: sum (of log p, "
          "nats), "
          "is_greedy\n"
          "(each token is the likeliest), tokens. Runs on any number of ranks, whatever layout wrote the "
          "checkpoint.",
      .options = {{"checkpoint", "DIR", "a checkpoint, or a run's folder: its newest (required)", false},
                  {"requests", "FILE", "JSON Lines of contexts and continuations (required)", false},
                  {"batch", "N", "requests per forward pass (default 8)", false},
                  {"max-length", "N",
                   "tokens that the model sees of a sequence at most, its end; the default is an export's "
                   "max_position_embeddings: the length that it was trained on",
                   false}},
      .takes_config = true,
      .example = "build/release/redllm eval loglikelihood --checkpoint runs/mine --requests requests.jsonl"};
}

std::vector<int32_t> ids_of(const json& value, const data::SpecialIds& ids, const std::string& place) {
  std::vector<int32_t> result;
  if (!value.is_array() || value.empty())
    throw DataError("{}: ids must be an array with at least one", place);
  for (const json& id : value) {
    if (!id.is_number_integer() || id.get<int64_t>() < 0 || id.get<int64_t>() >= ids.vocabulary_size)
      throw DataError("{}: {} is no id of the vocabulary of {}", place, id.dump(), ids.vocabulary_size);
    result.push_back(id.get<int32_t>());
  }
  return result;
}

eval::Continuation read_request(const std::string& text, const data::Tokenizer& tokenizer,
                                const eval::TextForm& form, const std::string& place) {
  const json line = json::parse(text, nullptr, false);
  if (!line.is_object()) throw DataError("{}: not a JSON object", place);
  if (line.contains("context") && line.contains("continuation") && line["context"].is_string() &&
      line["continuation"].is_string()) {
    return eval::encode_continuation(tokenizer, line["context"].get<std::string>(),
                                     line["continuation"].get<std::string>(), form, place);
  }
  if (line.contains("context_ids") && line.contains("continuation_ids"))
    return {ids_of(line["context_ids"], tokenizer.ids(), place),
            ids_of(line["continuation_ids"], tokenizer.ids(), place)};
  throw DataError(
      "{}: needs texts \"context\" and \"continuation\", or ids \"context_ids\" and \"continuation_ids\"",
      place);
}

std::vector<eval::Continuation> read_requests(const std::string& file, const data::Tokenizer& tokenizer,
                                              const eval::TextForm& form, int64_t max_length) {
  std::ifstream in(file, std::ios::binary);
  if (!in || std::filesystem::is_directory(file)) throw DataError("--requests {}: cannot be read", file);
  std::vector<eval::Continuation> requests;
  std::string text;
  for (int64_t number = 1; std::getline(in, text); ++number) {
    const std::string place = fmt::format("{}:{}", file, number);
    requests.push_back(read_request(text, tokenizer, form, place));
    eval::limit_length(requests.back(), max_length, form.has_encoder, place);
  }
  if (requests.empty()) throw DataError("--requests {}: is empty", file);
  return requests;
}

int score_on(const Ranks& ranks, config::RunConfig config, const std::filesystem::path& checkpoint,
             const std::vector<eval::Continuation>& requests, const eval::LoglikelihoodOptions& options) {
  config.train.precision =
      train::settle_precision(config.train.precision, std::nullopt, ranks.world, ranks.stream);
  train::Engine engine(train::evaluation_options(
                           config, eval::lengths_of(requests, config.model.has_encoder()), options.batch, 1),
                       ranks.mesh, ranks.stream);
  engine.load(checkpoint, false);
  const auto results = eval::loglikelihoods(engine, ranks.stream, config.model, requests, options);
  if (ranks.world.rank() != 0) return 0;
  for (const eval::Loglikelihood& result : results) {
    const nlohmann::ordered_json line = {
        {"sum", result.sum}, {"is_greedy", result.is_greedy}, {"tokens", result.tokens}};
    fmt::print("{}\n", line.dump());
  }
  return 0;
}

}  // namespace

int run_loglikelihood(std::span<const std::string> args) {
  const config::CommandLine line(spec(), args);
  if (line.help()) return print_help(spec());
  if (!line.has("checkpoint")) throw ConfigError("eval loglikelihood needs --checkpoint DIR");
  if (!line.has("requests")) throw ConfigError("eval loglikelihood needs --requests FILE");
  const std::filesystem::path checkpoint = find_checkpoint(line.get("checkpoint"));
  const config::Loaded loaded = load_from_checkpoint(checkpoint, line.sources());
  const config::RunConfig& config = loaded.config;
  const data::Tokenizer tokenizer = load_tokenizer(config);
  const eval::TextForm form{config.model.has_encoder(),
                            config.data.samples == data::SampleKind::pairs && config.data.end_input};
  const int64_t max_length =
      line.get_integer("max-length", convert::trained_length(config), 1, int64_t{1} << 30);
  const std::vector<eval::Continuation> requests =
      read_requests(line.get("requests"), tokenizer, form, max_length);
  eval::LoglikelihoodOptions options;
  options.batch = line.get_integer("batch", 8, 1, 1 << 16);
  options.start_token = tokenizer.ids().bos;
  options.positions = train::decoder_positions(config.model);
  options.bidirectional_input = !form.has_encoder && config.data.bidirectional_input;
  return run_on_ranks(
      config, [&](int num_ranks) { return layout_of_evaluation(loaded, num_ranks); },
      [&](const Ranks& ranks) { return score_on(ranks, config, checkpoint, requests, options); });
}

}  // namespace red::launch
