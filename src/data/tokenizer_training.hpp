// Training a tokenizer: a bounded, seeded sample of the texts, cut into sentences without losing white space,
// and SentencePiece with the settings that make it lossless.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace red::data {

struct TokenizerTraining {
  enum class Algorithm { bpe, unigram };
  Algorithm algorithm = Algorithm::bpe;
  int64_t vocabulary_size = 32768;
  /// Share of the characters of the sample that get pieces of their own; the rest go through bytes.
  double character_coverage = 0.9995;
};

/// A uniform sample of sentences within a number of bytes, from texts that may be far larger. Which sentences
/// stay depends on the seed and their number in the order of arrival alone.
class TrainingSample {
 public:
  TrainingSample(int64_t max_bytes, uint64_t seed) : max_bytes_(max_bytes), seed_(seed) {}

  /// Cuts the text at ends of lines, and long lines before a space; every byte lands in one sentence.
  void add_document(std::string_view text);
  int64_t num_bytes() const { return num_bytes_; }            ///< in the sample
  int64_t num_bytes_seen() const { return num_bytes_seen_; }  ///< offered so far
  /// In the order of arrival; the sample is empty afterwards.
  std::vector<std::string> take_sentences();

 private:
  struct Sentence {
    uint64_t rank;  ///< random; the smallest stay
    uint64_t number;
    std::string text;
    bool operator<(const Sentence& other) const {
      return rank != other.rank ? rank < other.rank : number < other.number;
    }
  };
  void add_sentence(std::string_view text);

  int64_t max_bytes_, num_bytes_ = 0, num_bytes_seen_ = 0;
  uint64_t seed_, num_seen_ = 0;
  std::vector<Sentence> heap_;  ///< largest rank in front
};

/// The bytes of a SentencePiece model. Throws ConfigError for a vocabulary the sample cannot fill or one
/// smaller than its bytes and characters, DataError for an empty sample.
std::string train_tokenizer(std::vector<std::string> sentences, const TokenizerTraining& options);

}  // namespace red::data
