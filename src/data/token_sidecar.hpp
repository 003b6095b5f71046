// PREFIX.json beside a token file: which tokenizer made it, from what, and what is in it. Files by others
// have none; where there is one, it keeps tokens from meeting another tokenizer unseen.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace red::data {

/// What the tokens of one file are like.
struct TokenStatistics {
  int64_t documents = 0;
  int64_t tokens = 0;            ///< [EOD] included
  int64_t text_bytes = 0;        ///< UTF-8 of the documents
  double unigram_entropy = 0.0;  ///< nats per token: the loss of a model that knows frequencies alone
};

struct TokenSidecar {
  TokenStatistics statistics;
  std::string tokenizer_sha256;
  int64_t vocabulary_size = 0;
  // How it was built.
  std::vector<std::string> inputs;
  std::string field;
  std::string targets_field;  ///< of pairs; empty: documents
  uint64_t seed = 0;
  bool shuffled = true;
  double held_out = 0.0;  ///< share of the documents
  int64_t bad_lines = 0;  ///< skipped
};

/// -sum p log p over the ids' shares, in nats; 0 without tokens.
double unigram_entropy(std::span<const int64_t> counts);

/// Writes PREFIX.json, whole or not at all.
void write_token_sidecar(const std::filesystem::path& prefix, const TokenSidecar& sidecar);
/// Nothing where there is no file. Throws DataError when it is no sidecar.
std::optional<TokenSidecar> read_token_sidecar(const std::filesystem::path& prefix);
/// Throws DataError when PREFIX.json names another tokenizer. An empty digest checks nothing.
void check_tokenizer(const std::filesystem::path& prefix, const std::string& tokenizer_sha256);

}  // namespace red::data
