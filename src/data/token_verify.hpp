// A token file read from end to end and held against everything that is known about it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "data/token_stream.hpp"

namespace red::data {

struct TokenFileReport {
  int64_t documents = 0;
  int64_t tokens = 0;
  TokenType type = TokenType::i32;
  int32_t largest_id = -1;
  bool has_sidecar = false;
  bool holds_pairs = false;
};

/// Opens the file as TokenFile does and reads every token. Where there is a PREFIX.json, its counts, its
/// vocabulary and its unigram entropy must be those of the file, and it holds pairs where that tells of them.
/// With `ids`: every id lies in the vocabulary, every document ends with [EOD] and has it nowhere else, and
/// the tokenizer is the one of PREFIX.json. Throws DataError at the first thing that is wrong, with its
/// place.
TokenFileReport verify_token_file(const std::filesystem::path& prefix, const SpecialIds* ids);

}  // namespace red::data
