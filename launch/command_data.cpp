// redllm data build|verify|show.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <thread>

#include "data/file_io.hpp"
#include "data/token_build.hpp"
#include "data/window_provider.hpp"
#include "launch/commands.hpp"
#include "launch/corpus_options.hpp"

namespace red::launch {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

config::CommandSpec build_spec() {
  config::CommandSpec spec{
      .name = "data build",
      .usage = "--tokenizer FILE --out PREFIX TEXT...",
      .summary =
          "Makes Megatron token files PREFIX_text_document.{bin,idx} from JSON Lines and plain text (also "
          ".gz and .zst).\n"
          "Each document ends with [EOD]; documents are written in a seeded order. PREFIX_text_document.json "
          "says what\n"
          "went in, and the unigram entropy of the tokens.",
      .options = {{"tokenizer", "FILE", "the tokenizer's model file (required)", false},
                  {"out", "PREFIX", "of the files to write (required)", false},
                  {"held-out", "SHARE",
                   "of the documents that goes to PREFIX_heldout_text_document (default 0)", false},
                  {"seed", "N", "of the order and of what is held out (default 1)", false},
                  {"no-shuffle", "", "keep the documents' order", false},
                  {"workers", "N", "encoding threads (default: all cores)", false}},
      .min_positional = 1,
      .max_positional = 1 << 20,
      .example =
          "build/release/redllm data build --tokenizer tokenizer.model --out data/wiki --held-out 0.02 "
          "wiki.jsonl"};
  for (const auto& option : corpus_command_options()) spec.options.push_back(option);
  return spec;
}

/// A bar on a terminal, a line now and then elsewhere.
class BuildProgress {
 public:
  void operator()(uint64_t done, uint64_t all, int64_t tokens) {
    const double interval = terminal_ ? 0.1 : 10.0;
    if (seconds_since(last_) < interval) return;
    last_ = Clock::now();
    const double share = all == 0 ? 1.0 : static_cast<double>(done) / static_cast<double>(all);
    const auto filled = static_cast<std::size_t>(30 * std::min(1.0, share));
    fmt::print(stderr, "{}[{:<30}] {:3.0f} %  {:.1f} M tokens  {:.1f} MiB/s{}", terminal_ ? "\r" : "",
               std::string(filled, '#'), 100 * share, static_cast<double>(tokens) / 1e6,
               static_cast<double>(done) / (1 << 20) / seconds_since(begin_), terminal_ ? "" : "\n");
    std::fflush(stderr);
    shown_ = true;
  }
  ~BuildProgress() {
    if (terminal_ && shown_) fmt::print(stderr, "\n");
  }

 private:
  bool terminal_ = isatty(STDERR_FILENO) != 0, shown_ = false;
  Clock::time_point begin_ = Clock::now(), last_ = begin_;
};

void write_sidecar(const data::TokenBuildOptions& options, const data::TokenBuildSummary& summary,
                   const data::Tokenizer& tokenizer) {
  nlohmann::ordered_json json = {{"documents", summary.documents},
                                 {"tokens", summary.tokens},
                                 {"held_out_documents", summary.held_out_documents},
                                 {"held_out_tokens", summary.held_out_tokens},
                                 {"text_bytes", summary.text_bytes},
                                 {"bad_lines", summary.bad_lines},
                                 {"unigram_entropy", summary.unigram_entropy},
                                 {"tokenizer_sha256", tokenizer.digest()},
                                 {"seed", options.seed},
                                 {"shuffled", options.shuffle}};
  for (const auto& input : options.corpus.inputs) json["inputs"].push_back(input.string());
  data::OutputFile file(data::with_suffix(data::training_prefix(options.prefix), ".json"));
  file.append(json.dump(1) + "\n");
  file.publish();
}

int build(std::span<const std::string> args) {
  const config::CommandSpec spec = build_spec();
  const config::CommandLine line(spec, args);
  if (line.help()) {
    fmt::print("{}", config::help_text(spec));
    return 0;
  }
  for (const char* needed : {"tokenizer", "out"}) {
    if (!line.has(needed)) throw ConfigError("data build needs --{}", needed);
  }
  data::TokenBuildOptions options;
  options.corpus = corpus_options(line);
  options.prefix = line.get("out");
  const auto cores = static_cast<int64_t>(std::max(1U, std::thread::hardware_concurrency()));
  options.workers = static_cast<int>(line.get_integer("workers", cores, 1, 1024));
  options.shuffle = !line.has("no-shuffle");
  options.seed = static_cast<uint64_t>(line.get_integer("seed", 1, 0, INT64_MAX));
  options.held_out = line.get_number("held-out", 0.0, 0.0, 1.0);
  options.max_bad_lines = line.get_integer("max-bad-lines", 0, 0, INT64_MAX);
  const data::Tokenizer tokenizer(line.get("tokenizer"));
  const auto begin = Clock::now();
  data::TokenBuildSummary summary;
  {
    BuildProgress bar;
    summary = data::build_token_files(tokenizer, options, std::ref(bar));
  }
  write_sidecar(options, summary, tokenizer);
  const double seconds = seconds_since(begin);
  const int64_t tokens = summary.tokens + summary.held_out_tokens;
  fmt::print(
      "{}: {} documents, {} tokens; held out {} documents, {} tokens; {:.2f} bytes/token, unigram entropy "
      "{:.3f} "
      "nats/token{}; {:.2f} s, {:.1f} MiB/s\n",
      data::training_prefix(options.prefix).string(), summary.documents, summary.tokens,
      summary.held_out_documents, summary.held_out_tokens,
      static_cast<double>(summary.text_bytes) / static_cast<double>(tokens), summary.unigram_entropy,
      summary.bad_lines > 0 ? fmt::format("; {} bad lines skipped", summary.bad_lines) : std::string(),
      seconds, static_cast<double>(summary.text_bytes) / (1 << 20) / seconds);
  return 0;
}

/// Reads every token of a file once.
template <class Visit>
void for_each_block(const data::TokenFile& file, Visit visit) {
  constexpr int64_t block = 1 << 16;
  std::vector<int32_t> ids;
  for (int64_t first = 0; first < file.num_tokens(); first += block) {
    ids.resize(std::min(block, file.num_tokens() - first));
    file.read(first, ids);
    visit(first, ids);
  }
}

int verify(std::span<const std::string> args) {
  const config::CommandSpec spec{
      .name = "data verify",
      .usage = "[--tokenizer FILE] PREFIX...",
      .summary =
          "Checks token files: index, lengths, offsets and size; with a tokenizer every id against its "
          "vocabulary, and\n"
          "that every document ends with [EOD].",
      .options = {{"tokenizer", "FILE", "the tokenizer's model file", false}},
      .min_positional = 1,
      .max_positional = 1 << 20,
      .example = "build/release/redllm data verify --tokenizer tokenizer.model data/wiki"};
  const config::CommandLine line(spec, args);
  if (line.help()) {
    fmt::print("{}", config::help_text(spec));
    return 0;
  }
  std::optional<data::Tokenizer> tokenizer;
  if (line.has("tokenizer")) tokenizer.emplace(line.get("tokenizer"));
  for (const std::string& prefix : line.positional()) {
    const data::TokenFile file(data::resolve_token_prefix(prefix));
    for_each_block(file, [&](int64_t first, const std::vector<int32_t>& ids) {
      if (!tokenizer) return;
      for (std::size_t i = 0; i < ids.size(); ++i) {
        if (ids[i] >= 0 && ids[i] < tokenizer->vocabulary_size()) continue;
        throw DataError("{}: token {} is {}, outside the tokenizer's {} pieces", file.bin_path().string(),
                        first + static_cast<int64_t>(i), ids[i], tokenizer->vocabulary_size());
      }
    });
    for (int64_t d = 0; tokenizer && d < file.num_documents(); ++d) {
      std::array<int32_t, 1> last{};
      const int64_t end = file.document_begin(d + 1);
      if (end > file.document_begin(d)) file.read(end - 1, last);
      if (last[0] == tokenizer->ids().eod) continue;
      throw DataError("{}: document {} does not end with [EOD]", file.bin_path().string(), d);
    }
    fmt::print("{}: whole; {} documents, {} tokens of type {}\n", file.prefix().string(),
               file.num_documents(), file.num_tokens(), data::name_of(file.type()));
  }
  return 0;
}

int show(std::span<const std::string> args) {
  const config::CommandSpec spec{
      .name = "data show",
      .usage = "--tokenizer FILE PREFIX",
      .summary =
          "Shows what token files hold: counts, and windows as the models see them. For a RedLLM the first "
          "half of a\n"
          "window is the encoder's, the second half the decoder's target.",
      .options = {{"tokenizer", "FILE", "the tokenizer's model file (required)", false},
                  {"sample", "N", "windows to print, from the beginning (default 1)", false},
                  {"window", "N", "tokens of a window (default 2048)", false}},
      .min_positional = 1,
      .max_positional = 1,
      .example =
          "build/release/redllm data show --tokenizer tokenizer.model --window 128 --sample 2 data/wiki"};
  const config::CommandLine line(spec, args);
  if (line.help()) {
    fmt::print("{}", config::help_text(spec));
    return 0;
  }
  if (!line.has("tokenizer")) throw ConfigError("data show needs --tokenizer FILE");
  const data::Tokenizer tokenizer(line.get("tokenizer"));
  const data::TokenFile file(data::resolve_token_prefix(line.positional().front()));
  const int64_t window = line.get_integer("window", 2048, 2, 1 << 24),
                num_windows = file.num_tokens() / window;
  fmt::print(
      "{}: {} documents, {} tokens of type {}, {:.1f} tokens a document; {} windows of {}, {} tokens left "
      "over\n",
      file.prefix().string(), file.num_documents(), file.num_tokens(), data::name_of(file.type()),
      static_cast<double>(file.num_tokens()) /
          static_cast<double>(std::max<int64_t>(1, file.num_documents())),
      num_windows, window, file.num_tokens() % window);
  std::vector<int32_t> ids(window);
  const int64_t count = std::min(num_windows, line.get_integer("sample", 1, 0, INT64_MAX));
  for (int64_t w = 0; w < count; ++w) {
    file.read(w * window, ids);
    const std::span<const int32_t> all(ids);
    fmt::print("--- window {}, first half\n{}\n--- window {}, second half\n{}\n", w,
               tokenizer.decode_visibly(all.first(window / 2)), w,
               tokenizer.decode_visibly(all.subspan(window / 2)));
  }
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
