// redllm tokenizer train|encode|decode.
#include <fmt/format.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <mutex>
#include <sstream>

#include "base/error.hpp"
#include "base/log.hpp"
#include "config/nearest_match.hpp"
#include "data/file_io.hpp"
#include "data/piece_parser.hpp"
#include "data/tokenizer.hpp"
#include "data/tokenizer_training.hpp"
#include "launch/commands.hpp"
#include "launch/corpus_options.hpp"
#include "launch/stage_bar.hpp"

namespace red::launch {
namespace {

constexpr int64_t kSampleMib = 32;

double mib(int64_t bytes) {
  return static_cast<double>(bytes) / (1 << 20);
}

config::CommandSpec train_spec() {
  config::CommandSpec spec{
      .name = "tokenizer train",
      .usage = "--out FILE TEXT...",
      .summary =
          "Trains a SentencePiece tokenizer that loses nothing: identity normalisation, white space kept, "
          "bytes for\n"
          "whatever is rare, and control symbols <pad>, <s>, </s> and [EOD] that no text can produce.",
      .options =
          {{"out", "FILE", "the model file (required)", false},
           {"vocab-size", "N", "pieces, control symbols and 256 bytes included (default 32768)", false},
           {"algorithm", "NAME", "bpe or unigram (default bpe)", false},
           {"character-coverage", "SHARE",
            "of the text's characters that get pieces of their own, 0.98 to 1; the others go through bytes "
            "(default 0.9995)",
            false},
           {"sample-mib", "N",
            fmt::format("MiB of text to train on, a seeded sample (default {})", kSampleMib), false},
           {"seed", "N", "of the sample (default 1)", false}},
      .min_positional = 1,
      .max_positional = 1 << 20,
      .example = "redllm tokenizer train --out tokenizer.model --vocab-size 4096 wiki.jsonl books.txt"};
  for (const auto& option : corpus_command_options()) spec.options.push_back(option);
  return spec;
}

data::TokenizerTraining training_options(const config::CommandLine& line) {
  data::TokenizerTraining training;
  training.vocabulary_size = line.get_integer("vocab-size", training.vocabulary_size, 300, 1 << 24);
  training.character_coverage = line.get_number("character-coverage", training.character_coverage, 0.98, 1.0);
  const std::string algorithm = line.get("algorithm", "bpe");
  if (algorithm == "unigram") {
    training.algorithm = data::TokenizerTraining::Algorithm::unigram;
  } else if (algorithm != "bpe") {
    throw ConfigError("command line: --algorithm {} is none of bpe, unigram", config::shown(algorithm));
  }
  return training;
}

/// Reads all texts once; what stays is within the sample's bytes.
data::TrainingSample read_sample(const config::CommandLine& line) {
  data::TrainingSample sample(line.get_integer("sample-mib", kSampleMib, 1, 1 << 14) << 20,
                              static_cast<uint64_t>(line.get_integer("seed", 1, 0, INT64_MAX)));
  data::CorpusReader reader(corpus_options(line));
  data::BadLines bad_lines(line.get_integer("max-bad-lines", 0, 0, INT64_MAX));
  std::mutex long_lines;
  data::PieceParser parser(line.get("field", "text"), long_lines);
  StageBar bar;
  while (auto piece = reader.next()) {
    data::BadLine bad;
    if (const auto text = parser.parse(*piece, bad)) {
      sample.add_document(*text);
    } else {
      bad_lines.add(bad);
    }
    bar.show("reading", reader.num_file_bytes_read(), reader.num_file_bytes(), [&](double seconds) {
      return fmt::format("{:.1f} MiB of text, {:.1f} MiB/s", mib(sample.num_bytes_seen()),
                         mib(sample.num_bytes_seen()) / seconds);
    });
  }
  if (bad_lines.count() > 0) log::warning("{} bad lines skipped", bad_lines.count());
  return sample;
}

int train(std::span<const std::string> args) {
  const config::CommandSpec spec = train_spec();
  const config::CommandLine line(spec, args);
  if (line.help()) return print_help(spec);
  if (!line.has("out")) throw ConfigError("tokenizer train needs --out FILE");
  const data::TokenizerTraining training = training_options(line);
  data::TrainingSample sample = read_sample(line);
  log::info("training on {:.1f} of {:.1f} MiB", mib(sample.num_bytes()), mib(sample.num_bytes_seen()));
  std::string model;
  {
    const StillRunning progress(fmt::format("training a tokenizer of {} pieces", training.vocabulary_size));
    model = data::train_tokenizer(sample.take_sentences(), training);
  }
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
  if (std::filesystem::is_directory(path))
    throw IoError("{}: cannot be read, it is a folder; give one file, or text on standard input", path);
  std::ifstream in(path, std::ios::binary);
  if (!in) throw IoError("{}: cannot be read: {}", path, std::strerror(errno));
  try {
    return {std::istreambuf_iterator<char>(in), {}};
  } catch (const std::ios_base::failure& error) {
    throw IoError("{}: cannot be read: {}", path, error.what());
  }
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
      "echo 'some text' | redllm tokenizer encode --tokenizer tokenizer.model");
  const config::CommandLine line(spec, args);
  if (line.help()) return print_help(spec);
  fmt::print("{}\n", fmt::join(tokenizer_of(line, spec.name).encode(read_text(line)), " "));
  return 0;
}

int decode(std::span<const std::string> args) {
  const config::CommandSpec spec = codec_spec(
      "tokenizer decode", "Prints the text of token ids (INPUT, or standard input), byte for byte.",
      "redllm tokenizer decode --tokenizer tokenizer.model ids.txt");
  const config::CommandLine line(spec, args);
  if (line.help()) return print_help(spec);
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
