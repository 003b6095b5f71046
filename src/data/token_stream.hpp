// The documents of one token file, one after another, each ended by [EOD]: what windows are cut from. Ends
// are checked or added here, and every id is held against the vocabulary.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "data/data_config.hpp"
#include "data/token_file.hpp"

namespace red::data {

/// Ids with a meaning, from the tokenizer.
struct SpecialIds {
  int32_t pad = 0;
  int32_t bos = 1;  ///< start token of every decoder input
  int32_t eos = 2;
  int32_t eod = 4;  ///< ends each document of a token file
  int64_t vocabulary_size = 0;
  std::string tokenizer_sha256 = {};  ///< of the tokenizer; empty: unknown
};

class TokenStream {
 public:
  /// Looks at the ends of up to 4,096 documents spread over the file: all have [EOD], or none has and
  /// `missing_eod` says to add it; anything else is a DataError. The ends of the others are checked when they
  /// are read.
  TokenStream(TokenFile file, const SpecialIds& ids, MissingEod missing_eod);

  const TokenFile& file() const { return file_; }
  int64_t num_tokens() const { return file_.num_tokens() + (adds_eod_ ? file_.num_documents() : 0); }

  /// Tokens first ... first + out.size() - 1 of the stream. Throws DataError naming file and token for an id
  /// outside the vocabulary, and for a document that ends otherwise than the file's others.
  void read(int64_t first, std::span<int32_t> out) const;
  /// Document of each of these tokens, counted from the document of token `origin`.
  void read_documents(int64_t origin, int64_t first, std::span<int32_t> out) const;
  /// The document that a token of the stream is in.
  int64_t document_of(int64_t position) const;

 private:
  /// First stream token of a document.
  int64_t begin(int64_t document) const {
    return file_.document_begin(document) + (adds_eod_ ? document : 0);
  }
  bool ends_with_eod(int64_t document) const;
  bool find_whether_to_add(MissingEod missing_eod) const;
  void check_ids(int64_t first, std::span<const int32_t> tokens) const;
  void read_plain(int64_t first, std::span<int32_t> out) const;
  void read_adding(int64_t first, std::span<int32_t> out) const;

  TokenFile file_;
  SpecialIds ids_;
  bool adds_eod_ = false;
};

}  // namespace red::data
