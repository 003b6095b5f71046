// redllm data build|verify|show.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <chrono>
#include <optional>
#include <thread>

#include "base/error.hpp"
#include "data/keyed_permutation.hpp"
#include "data/token_build.hpp"
#include "data/token_verify.hpp"
#include "launch/commands.hpp"
#include "launch/corpus_options.hpp"
#include "launch/stage_bar.hpp"

namespace red::launch {
namespace {

constexpr int kManyWords = 1 << 20;
constexpr double kMiB = 1 << 20;

config::CommandSpec build_spec() {
  config::CommandSpec spec{
      .name = "data build",
      .usage = "--tokenizer FILE --out PREFIX TEXT...",
      .summary =
          "Makes Megatron token files PREFIX_text_document.{bin,idx} from JSON Lines and plain text (also "
          ".gz and\n"
          ".zst). Each document ends with [EOD]; documents are written in a seeded order. "
          "PREFIX_text_document.json\n"
          "tells the tokenizer's digest, what went in, and the unigram entropy of the tokens. With --pairs, "
          "each line\n"
          "holds inputs and targets for instruction tuning (data.samples = pairs). Files of that "
          "name are\n"
          "replaced when all is written. Uses at most 1 GiB of memory, and disk for the tokens twice.",
      .options = {{"tokenizer", "FILE", "the tokenizer's model file (required)", false},
                  {"out", "PREFIX", "of the files to write (required)", false},
                  {"held-out", "SHARE",
                   "of the documents that goes to PREFIX_heldout_text_document, 0 to 1 (default 0)", false},
                  {"seed", "N", "of the order and of what is held out (default 1)", false},
                  {"no-shuffle", "", "keep the documents' order", false},
                  {"pairs", "", "each line of JSON is a pair; its documents have two sequences", false},
                  {"inputs-field", "NAME", "with --pairs, the field of the inputs (default inputs)", false},
                  {"targets-field", "NAME",
                   "with --pairs, the field of the targets, never empty (default targets)", false},
                  {"workers", "N", "encoding threads (default: all cores)", false}},
      .min_positional = 1,
      .max_positional = kManyWords,
      .example =
          "redllm data build --tokenizer tokenizer.model --out data/wiki --held-out 0.02 wiki.jsonl.zst"};
  for (const auto& option : corpus_command_options()) spec.options.push_back(option);
  return spec;
}

void print_statistics(const std::filesystem::path& prefix, const data::TokenStatistics& statistics) {
  fmt::print(
      "{}: {} documents, {} tokens, {} bytes of text, {:.4f} tokens/byte, unigram entropy {:.3f} "
      "nats/token\n",
      prefix.string(), statistics.documents, statistics.tokens, statistics.text_bytes,
      static_cast<double>(statistics.tokens) /
          static_cast<double>(std::max<int64_t>(1, statistics.text_bytes)),
      statistics.unigram_entropy);
}

std::string progress_detail(const data::TokenBuildStage& stage, double seconds) {
  const double tokens = static_cast<double>(stage.tokens);
  return fmt::format("{:.1f} M tokens, {:.2f} M tokens/s, {:.0f} s left", tokens / 1e6,
                     tokens / seconds / 1e6,
                     static_cast<double>(stage.total - stage.done) * seconds /
                         static_cast<double>(std::max<uint64_t>(1, stage.done)));
}

/// Fields of pairs instead of one field; what is for texts alone is refused.
void read_pair_options(const config::CommandLine& line, data::TokenBuildOptions& options) {
  const bool pairs = line.has("pairs");
  for (const char* option : {"inputs-field", "targets-field"}) {
    if (!pairs && line.has(option)) throw ConfigError("command line: --{} is for --pairs", option);
  }
  if (!pairs) return;
  for (const char* option : {"field", "split", "separator"}) {
    if (line.has(option))
      throw ConfigError("command line: --{} is for texts; --pairs has --inputs-field and --targets-field",
                        option);
  }
  if (options.corpus.format == data::CorpusOptions::Format::text)
    throw ConfigError("command line: --format text with --pairs: pairs are lines of JSON");
  options.corpus.format = data::CorpusOptions::Format::jsonl;
  options.corpus.field = line.get("inputs-field", "inputs");
  options.targets_field = line.get("targets-field", "targets");
  if (options.targets_field.empty()) throw ConfigError("command line: --targets-field is empty");
  if (options.targets_field == options.corpus.field)
    throw ConfigError("command line: inputs and targets are both the field '{}'", options.targets_field);
}

data::TokenBuildOptions build_options(const config::CommandLine& line) {
  data::TokenBuildOptions options;
  options.corpus = corpus_options(line);
  read_pair_options(line, options);
  options.prefix = line.get("out");
  const auto cores = static_cast<int64_t>(std::max(1U, std::thread::hardware_concurrency()));
  options.workers = static_cast<int>(line.get_integer("workers", cores, 1, 1024));
  options.shuffle = !line.has("no-shuffle");
  options.seed = static_cast<uint64_t>(line.get_integer("seed", 1, 0, INT64_MAX));
  options.held_out = line.get_number("held-out", 0.0, 0.0, 1.0);
  options.max_bad_lines = line.get_integer("max-bad-lines", 0, 0, INT64_MAX);
  return options;
}

int build(std::span<const std::string> args) {
  const config::CommandSpec spec = build_spec();
  const config::CommandLine line(spec, args);
  if (line.help()) return print_help(spec);
  for (const char* needed : {"tokenizer", "out"}) {
    if (!line.has(needed)) throw ConfigError("data build needs --{}", needed);
  }
  const data::TokenBuildOptions options = build_options(line);
  const data::Tokenizer tokenizer(line.get("tokenizer"));
  const auto begin = std::chrono::steady_clock::now();
  data::TokenBuildSummary summary;
  {
    StageBar bar;
    summary = data::build_token_files(tokenizer, options, [&bar](const data::TokenBuildStage& stage) {
      bar.show(stage.name, stage.done, stage.total,
               [&stage](double seconds) { return progress_detail(stage, seconds); });
    });
  }
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  print_statistics(data::training_prefix(options.prefix), summary.training);
  if (summary.held_out.documents > 0) {
    print_statistics(data::held_out_prefix(options.prefix), summary.held_out);
  }
  if (summary.bad_lines > 0) fmt::print("{} bad lines skipped\n", summary.bad_lines);
  const auto bytes = static_cast<double>(summary.training.text_bytes + summary.held_out.text_bytes);
  const auto tokens = static_cast<double>(summary.training.tokens + summary.held_out.tokens);
  fmt::print("{:.2f} s, {:.2f} MiB/s, {:.2f} M tokens/s\n", seconds, bytes / kMiB / seconds,
             tokens / 1e6 / seconds);
  return 0;
}

config::CommandSpec verify_spec() {
  return {
      .name = "data verify",
      .usage = "[--tokenizer FILE] PREFIX...",
      .summary =
          "Reads token files from end to end: header, sizes, every length, offset and boundary, and, "
          "where there is\n"
          "a PREFIX.json, its counts, vocabulary and unigram entropy. With a tokenizer also that every id "
          "is in its\n"
          "vocabulary, that [EOD] ends each document and stands nowhere else, and that it is the "
          "tokenizer the files\n"
          "were built with.",
      .options = {{"tokenizer", "FILE", "the tokenizer's model file", false}},
      .min_positional = 1,
      .max_positional = kManyWords,
      .example = "redllm data verify --tokenizer tokenizer.model data/wiki data/wiki_heldout"};
}

int verify(std::span<const std::string> args) {
  const config::CommandSpec spec = verify_spec();
  const config::CommandLine line(spec, args);
  if (line.help()) return print_help(spec);
  std::optional<data::Tokenizer> tokenizer;
  if (line.has("tokenizer")) tokenizer.emplace(line.get("tokenizer"));
  for (const std::string& word : line.positional()) {
    const std::filesystem::path prefix = data::resolve_token_prefix(word);
    const auto report = data::verify_token_file(prefix, tokenizer ? &tokenizer->ids() : nullptr);
    std::string unknown;
    if (!report.has_sidecar) unknown += "; no .json beside it";
    if (!tokenizer) unknown += "; [EOD] not checked (--tokenizer)";
    fmt::print("{}: whole; {} {}, {} tokens of type {}, largest id {}{}\n", prefix.string(), report.documents,
               report.holds_pairs ? "pairs" : "documents", report.tokens, data::name_of(report.type),
               report.largest_id, unknown);
  }
  return 0;
}

config::CommandSpec show_spec() {
  return {
      .name = "data show",
      .usage = "[--tokenizer FILE] PREFIX",
      .summary =
          "Shows what token files hold: counts, lengths of documents, and, with a tokenizer, windows drawn "
          "at\n"
          "random as the models see them: for a RedLLM the first half is the encoder's input, the second "
          "the\n"
          "decoder's target; for a DecLLM both together are the target. Of pairs it shows inputs and "
          "targets. "
          "Control\n"
          "symbols are shown by name.",
      .options = {{"tokenizer", "FILE", "the tokenizer's model file", false},
                  {"sample", "N", "windows or pairs to print; needs --tokenizer (default 1 with it)", false},
                  {"at", "I", "print window or pair I, counted from 0, instead of some at random", false},
                  {"window", "N", "tokens of a window, even (default 2048)", false},
                  {"seed", "N", "of the windows drawn (default 1)", false}},
      .min_positional = 1,
      .max_positional = 1,
      .example = "redllm data show --tokenizer tokenizer.model --window 128 --sample 3 data/wiki"};
}

/// Lengths of documents, by powers of two.
void print_lengths(const data::TokenFile& file) {
  std::array<int64_t, 33> counts{};
  int64_t longest = 0;
  for (int64_t d = 0; d < file.num_documents(); ++d) {
    const int64_t length = file.document_begin(d + 1) - file.document_begin(d);
    longest = std::max(longest, length);
    ++counts[static_cast<std::size_t>(std::bit_width(static_cast<uint64_t>(length)))];
  }
  fmt::print("tokens of a document: {:.1f} on average, {} at most\n",
             static_cast<double>(file.num_tokens()) /
                 static_cast<double>(std::max<int64_t>(1, file.num_documents())),
             longest);
  for (std::size_t bits = 0; bits < counts.size(); ++bits) {
    if (counts[bits] == 0) continue;
    const int64_t low = bits == 0 ? 0 : int64_t{1} << (bits - 1);
    fmt::print("  {:>8} ... {:<10} {}\n", low, (int64_t{1} << bits) - 1, counts[bits]);
  }
}

void print_window(const data::TokenFile& file, const data::Tokenizer& tokenizer, int64_t window,
                  int64_t index) {
  std::vector<int32_t> ids(static_cast<std::size_t>(window));
  file.read(index * window, ids);
  const std::span<const int32_t> all(ids);
  fmt::print(
      "--- window {}, first half (RedLLM: encoder input)\n{}\n--- window {}, second half (RedLLM: "
      "target)\n{}\n",
      index, tokenizer.decode_visibly(all.first(ids.size() / 2)), index,
      tokenizer.decode_visibly(all.subspan(ids.size() / 2)));
}

void print_pair(const data::TokenFile& file, const data::Tokenizer& tokenizer, int64_t pair) {
  const auto text = [&](int64_t sequence) {
    const int64_t begin = file.sequence_begin(sequence);
    std::vector<int32_t> ids(static_cast<std::size_t>(file.sequence_begin(sequence + 1) - begin));
    file.read(begin, ids);
    return tokenizer.decode_visibly(ids);
  };
  fmt::print("--- pair {}, inputs\n{}\n--- pair {}, targets\n{}\n", pair, text(2 * pair), pair,
             text(2 * pair + 1));
}

/// Prints the items that were asked for: windows, or pairs where the file holds them.
void print_items(const data::TokenFile& file, const data::Tokenizer& tokenizer, int64_t window,
                 const config::CommandLine& line) {
  const bool pairs = file.holds_pairs();
  const int64_t num_items = pairs ? file.num_documents() : file.num_tokens() / window;
  const auto print = [&](int64_t index) {
    pairs ? print_pair(file, tokenizer, index) : print_window(file, tokenizer, window, index);
  };
  if (line.has("at")) {
    const int64_t index = line.get_integer("at", 0, 0, INT64_MAX);
    if (index >= num_items)
      throw ConfigError("command line: --at {}: {} has {} {}, counted from 0", index, file.prefix().string(),
                        num_items, pairs ? "pairs" : "windows");
    return print(index);
  }
  if (num_items == 0) return;
  const int64_t count = line.get_integer("sample", 1, 0, INT64_MAX);
  const auto seed = static_cast<uint64_t>(line.get_integer("seed", 1, 0, INT64_MAX));
  const data::KeyedPermutation order(static_cast<uint64_t>(num_items), seed, 0);
  for (int64_t i = 0; i < std::min(num_items, count); ++i)
    print(static_cast<int64_t>(order(static_cast<uint64_t>(i))));
}

int show(std::span<const std::string> args) {
  const config::CommandSpec spec = show_spec();
  const config::CommandLine line(spec, args);
  if (line.help()) return print_help(spec);
  std::optional<data::Tokenizer> tokenizer;
  if (line.has("tokenizer")) tokenizer.emplace(line.get("tokenizer"));
  for (const char* option : {"sample", "at"}) {
    if (line.has(option) && !tokenizer) throw ConfigError("data show --{} needs --tokenizer FILE", option);
  }
  if (line.has("sample") && line.has("at"))
    throw ConfigError("command line: --sample draws at random, --at chooses: give one of them");
  const int64_t window = line.get_integer("window", 2048, 2, 1 << 24);
  if (window % 2 != 0)
    throw ConfigError("command line: --window {} is odd: its halves must be equal", window);
  const data::TokenFile file(data::resolve_token_prefix(line.positional().front()));
  const std::string items = file.holds_pairs()
                                ? "each a pair of inputs and targets"
                                : fmt::format("{} windows of {}, {} tokens left over",
                                              file.num_tokens() / window, window, file.num_tokens() % window);
  fmt::print("{}: {} documents, {} tokens of type {}; {}\n", file.prefix().string(), file.num_documents(),
             file.num_tokens(), data::name_of(file.type()), items);
  if (const auto sidecar = data::read_token_sidecar(file.prefix())) {
    print_statistics(file.prefix(), sidecar->statistics);
    fmt::print("built with the tokenizer of SHA-256 {}, {} pieces\n", sidecar->tokenizer_sha256,
               sidecar->vocabulary_size);
  }
  if (tokenizer) data::check_tokenizer(file.prefix(), tokenizer->digest());
  print_lengths(file);
  if (tokenizer) print_items(file, *tokenizer, window, line);
  return 0;
}

}  // namespace

int run_data(std::span<const std::string> args) {
  static constexpr std::array list = {
      Command{"build", "text to token files", build},
      Command{"verify", "check token files", verify},
      Command{"show", "show what token files hold", show},
  };
  return dispatch("redllm data", list, args);
}

}  // namespace red::launch
