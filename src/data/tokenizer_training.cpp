#include "data/tokenizer_training.hpp"

#include <sentencepiece_trainer.h>

#include <algorithm>
#include <unordered_map>
#include <utility>

#include "base/error.hpp"
#include "base/philox.hpp"
#include "data/tokenizer.hpp"
#include "data/utf8.hpp"

namespace red::data {
namespace {

constexpr std::size_t kMaxSentenceBytes = 4096;

/// Hands sentences to SentencePiece one by one.
class Sentences final : public sentencepiece::SentenceIterator {
 public:
  explicit Sentences(std::vector<std::string> sentences) : sentences_(std::move(sentences)) {}
  bool done() const override { return next_ == sentences_.size(); }
  // SentencePiece's names.
  void Next() override {  // NOLINT(readability-identifier-naming)
    sentences_[next_++] = {};
  }
  const std::string& value() const override { return sentences_[next_]; }
  sentencepiece::util::Status status() const override { return {}; }

 private:
  std::vector<std::string> sentences_;
  std::size_t next_ = 0;
};

/// End of the sentence that begins at `begin`: after a line's end and the empty lines that follow, or before
/// a space where the line is long.
std::size_t sentence_end(std::string_view text, std::size_t begin) {
  const std::size_t limit = std::min(text.size(), begin + kMaxSentenceBytes);
  const std::size_t newline = text.substr(begin, limit - begin).find('\n');
  if (newline != std::string_view::npos) {
    std::size_t end = begin + newline;
    while (end < limit && text[end] == '\n') ++end;
    return end;
  }
  if (limit == text.size()) return limit;
  const std::size_t space = text.rfind(' ', limit - 1);
  if (space != std::string_view::npos && space > begin) return space;
  const std::size_t cut = utf8_floor(text, limit);
  return cut > begin ? cut : limit;
}

/// SentencePiece skips whole sentences that hold a character of its own use (U+2581, U+2585, NUL); a line's
/// end takes the character's place instead.
std::string without_reserved(std::string_view text) {
  std::string clean;
  clean.reserve(text.size());
  for (std::size_t at = 0; at < text.size(); at += utf8_length(text[at])) {
    const std::string_view character = text.substr(at, utf8_length(text[at]));
    const bool reserved = character == "\xe2\x96\x81" || character == "\xe2\x96\x85" || text[at] == '\0';
    clean.append(reserved ? std::string_view("\n") : character);
  }
  return clean;
}

[[noreturn]] void explain(const std::string& reason, const TokenizerTraining& options) {
  const auto has = [&](const char* words) { return reason.find(words) != std::string::npos; };
  if (has("smaller than required_chars")) {
    throw ConfigError(
        "vocabulary size {}: too small for 256 bytes, {} control symbols and the characters of the text; use "
        "a larger "
        "one or a smaller character coverage ({})",
        options.vocabulary_size, 5, reason);
  }
  if (has("Vocabulary size too high") || has("vocab_size()) == (model_proto->pieces_size())")) {
    throw ConfigError(
        "vocabulary size {}: the text is too small for so many pieces; use a smaller one or more text ({})",
        options.vocabulary_size, reason);
  }
  throw DataError("SentencePiece cannot train: {}", reason);
}

}  // namespace

void TrainingSample::add_document(std::string_view text) {
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = sentence_end(text, begin);
    add_sentence(text.substr(begin, end - begin));
    begin = end;
  }
}

void TrainingSample::add_sentence(std::string_view text) {
  const uint64_t number = num_seen_++;
  const PhiloxBlock random = philox(hash_name("tokenizer.sample", seed_), number);
  const uint64_t rank = static_cast<uint64_t>(random[1]) << 32 | random[0];
  num_bytes_seen_ += static_cast<int64_t>(text.size());
  const bool full = num_bytes_ >= max_bytes_;
  if (full && rank >= heap_.front().rank) return;
  heap_.push_back({rank, number, std::string(text)});
  std::push_heap(heap_.begin(), heap_.end());
  num_bytes_ += static_cast<int64_t>(text.size());
  while (num_bytes_ > max_bytes_ && heap_.size() > 1) {
    std::pop_heap(heap_.begin(), heap_.end());
    num_bytes_ -= static_cast<int64_t>(heap_.back().text.size());
    heap_.pop_back();
  }
}

std::vector<std::string> TrainingSample::take_sentences() {
  std::sort(heap_.begin(), heap_.end(),
            [](const Sentence& a, const Sentence& b) { return a.number < b.number; });
  std::vector<std::string> sentences;
  sentences.reserve(heap_.size());
  for (Sentence& sentence : heap_) sentences.push_back(std::move(sentence.text));
  heap_.clear();
  num_bytes_ = 0;
  return sentences;
}

std::string train_tokenizer(std::vector<std::string> sentences, const TokenizerTraining& options) {
  if (sentences.empty()) throw DataError("no text to train a tokenizer on");
  for (std::string& sentence : sentences) sentence = without_reserved(sentence);
  const std::unordered_map<std::string, std::string> settings = {
      {"model_type", options.algorithm == TokenizerTraining::Algorithm::bpe ? "bpe" : "unigram"},
      {"vocab_size", std::to_string(options.vocabulary_size)},
      {"character_coverage", std::to_string(options.character_coverage)},
      {"byte_fallback", "true"},
      {"normalization_rule_name", "identity"},
      {"remove_extra_whitespaces", "false"},
      {"add_dummy_prefix", "false"},
      {"allow_whitespace_only_pieces", "true"},  // indentation in few tokens
      {"max_sentence_length", "1000000"},        // sentences are cut here already
      {"pad_id", "0"},
      {"pad_piece", ControlSymbols::kPad},
      {"bos_id", "1"},
      {"bos_piece", ControlSymbols::kBos},
      {"eos_id", "2"},
      {"eos_piece", ControlSymbols::kEos},
      {"unk_id", "3"},
      {"control_symbols", ControlSymbols::kEod},
      {"minloglevel", "2"},  // its progress lines; ours say enough
  };
  Sentences iterator(std::move(sentences));
  std::string model;
  const auto status = sentencepiece::SentencePieceTrainer::Train(settings, &iterator, &model);
  if (!status.ok()) explain(status.ToString(), options);
  return model;
}

}  // namespace red::data
