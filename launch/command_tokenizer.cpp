// redllm tokenizer train|encode|decode.
#include <fmt/format.h>

#include <array>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <iterator>
#include <mutex>
#include <sstream>

#include "base/log.hpp"
#include "data/file_io.hpp"
#include "data/piece_parser.hpp"
#include "data/tokenizer.hpp"
#include "data/tokenizer_training.hpp"
#include "launch/commands.hpp"
#include "launch/corpus_options.hpp"

namespace red::launch {
namespace {

config::CommandSpec train_spec() {
  config::CommandSpec spec{
      .name = "tokenizer train",
      .usage = "--out FILE TEXT...",
      .summary =
          "Trains a SentencePiece tokenizer that loses nothing: identity normalisation, white space kept, "
          "bytes for\n"
          "whatever is rare, and control symbols <pad>, <s>, </s> and [EOD] that no text can produce.",
      .options = {{"out", "FILE", "the model file (required)", false},
                  {"vocab-size", "N", "pieces, control symbols and 256 bytes included (default 32768)",
                   false},
                  {"algorithm", "NAME", "bpe or unigram (default bpe)", false},
                  {"sample-mib", "N", "MiB of text to train on, a seeded sample (default 64)", false},
                  {"seed", "N", "of the sample (default 1)", false}},
      .min_positional = 1,
      .max_positional = 1 << 20,
      .example =
          "build/release/redllm tokenizer train --out tokenizer.model --vocab-size 4096 wiki.jsonl "
          "books.txt"};
  for (const auto& option : corpus_command_options()) spec.options.push_back(option);
  return spec;
}

int train(std::span<const std::string> args) {
  const config::CommandSpec spec = train_spec();
  const config::CommandLine line(spec, args);
  if (line.help()) {
    fmt::print("{}", config::help_text(spec));
    return 0;
  }
  if (!line.has("out")) throw ConfigError("tokenizer train needs --out FILE");
  data::TokenizerTraining training;
  training.vocabulary_size = line.get_integer("vocab-size", 32768, 300, 1 << 24);
  const std::string algorithm = line.get("algorithm", "bpe");
  if (algorithm != "bpe" && algorithm != "unigram") {
    throw ConfigError("command line: --algorithm {} is none of bpe, unigram", algorithm);
  }
  if (algorithm == "unigram") training.algorithm = data::TokenizerTraining::Algorithm::unigram;
  data::TrainingSample sample(line.get_integer("sample-mib", 64, 1, 1 << 14) << 20,
                              static_cast<uint64_t>(line.get_integer("seed", 1, 0, INT64_MAX)));
  data::CorpusReader reader(corpus_options(line));
  data::BadLines bad_lines(line.get_integer("max-bad-lines", 0, 0, INT64_MAX));
  std::mutex long_lines;
  data::PieceParser parser(line.get("field", "text"), long_lines);
  while (auto piece = reader.next()) {
    data::BadLine bad;
    if (const auto text = parser.parse(*piece, bad)) {
      sample.add_document(*text);
    } else {
      bad_lines.add(bad);
    }
  }
  log::info("training on {:.1f} of {:.1f} MiB", static_cast<double>(sample.num_bytes()) / (1 << 20),
            static_cast<double>(sample.num_bytes_seen()) / (1 << 20));
  const std::string model = data::train_tokenizer(sample.take_sentences(), training);
  const data::Tokenizer tokenizer = data::Tokenizer::from_bytes(model, line.get("out"));
  data::OutputFile file(line.get("out"));
  file.append(model);
  file.publish();
  fmt::print("{}: {} pieces, SHA-256 {}\n", line.get("out"), tokenizer.vocabulary_size(), tokenizer.digest());
  return 0;
}

std::string read_text(const config::CommandLine& line) {
  if (line.positional().empty()) return {std::istreambuf_iterator<char>(std::cin), {}};
  const std::string& path = line.positional().front();
  std::ifstream in(path, std::ios::binary);
  if (!in) throw IoError("{}: cannot be read", path);
  return {std::istreambuf_iterator<char>(in), {}};
}

config::CommandSpec codec_spec(const std::string& name, const std::string& summary,
                               const std::string& example) {
  return {.name = name,
          .usage = "--tokenizer FILE [INPUT]",
          .summary = summary,
          .options = {{"tokenizer", "FILE", "the model file (required)", false}},
          .max_positional = 1,
          .example = example};
}

data::Tokenizer tokenizer_of(const config::CommandLine& line, const std::string& command) {
  if (!line.has("tokenizer")) throw ConfigError("{} needs --tokenizer FILE", command);
  return data::Tokenizer(line.get("tokenizer"));
}

int encode(std::span<const std::string> args) {
  const config::CommandSpec spec = codec_spec(
      "tokenizer encode", "Prints the token ids of a text (INPUT, or standard input), separated by spaces.",
      "echo 'some text' | build/release/redllm tokenizer encode --tokenizer tokenizer.model");
  const config::CommandLine line(spec, args);
  if (line.help()) {
    fmt::print("{}", config::help_text(spec));
    return 0;
  }
  fmt::print("{}\n", fmt::join(tokenizer_of(line, spec.name).encode(read_text(line)), " "));
  return 0;
}

int decode(std::span<const std::string> args) {
  const config::CommandSpec spec = codec_spec(
      "tokenizer decode", "Prints the text of token ids (INPUT, or standard input), byte for byte.",
      "build/release/redllm tokenizer decode --tokenizer tokenizer.model ids.txt");
  const config::CommandLine line(spec, args);
  if (line.help()) {
    fmt::print("{}", config::help_text(spec));
    return 0;
  }
  const data::Tokenizer tokenizer = tokenizer_of(line, spec.name);
  std::istringstream in(read_text(line));
  std::vector<int32_t> ids;
  std::string word;
  while (in >> word) {
    std::size_t used = 0;
    try {
      ids.push_back(std::stoi(word, &used));
    } catch (const std::exception&) {
      used = 0;
    }
    if (used != word.size()) throw DataError("'{}', word {} of the input, is no token id", word, ids.size());
  }
  const std::string text = tokenizer.decode(ids);
  std::fwrite(text.data(), 1, text.size(), stdout);
  return 0;
}

}  // namespace

int run_tokenizer(std::span<const std::string> args) {
  static constexpr std::array list = {
      Command{"train", "make a tokenizer from text", train},
      Command{"encode", "text to token ids", encode},
      Command{"decode", "token ids to text", decode},
  };
  return dispatch("redllm tokenizer", list, args);
}

}  // namespace red::launch
