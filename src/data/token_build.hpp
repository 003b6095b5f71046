// From text to token files: documents are read, encoded by several threads in order, each ended by [EOD],
// then written in a seeded order of their own, a share of them as held-out files. Memory is bounded whatever
// the input: what lies between the two passes lies on disk.
#pragma once

#include <functional>

#include "data/corpus_reader.hpp"
#include "data/tokenizer.hpp"

namespace red::data {

struct TokenBuildOptions {
  CorpusOptions corpus;
  std::filesystem::path prefix;  ///< PREFIX_text_document.{bin,idx}, PREFIX_heldout_text_document.{bin,idx}
  int workers = 1;
  bool shuffle = true;  ///< documents in a seeded order; false: as they come
  uint64_t seed = 1;
  double held_out = 0.0;  ///< share of the documents that goes to the held-out files
  int64_t max_bad_lines = 0;
};

struct TokenBuildSummary {
  int64_t documents = 0, tokens = 0;  ///< training files
  int64_t held_out_documents = 0, held_out_tokens = 0;
  int64_t text_bytes = 0;  ///< UTF-8 of all documents
  int64_t bad_lines = 0;
  double unigram_entropy = 0.0;  ///< nats per token of the training files
};

/// How far the first pass is: bytes of input done, of all, tokens so far.
using TokenBuildProgress = std::function<void(uint64_t, uint64_t, int64_t)>;

/// Throws DataError (bad lines, bad UTF-8, no document), IoError; then nothing is under a final name.
TokenBuildSummary build_token_files(const Tokenizer& tokenizer, const TokenBuildOptions& options,
                                    const TokenBuildProgress& progress = {});

/// Where the files of a prefix lie.
std::filesystem::path training_prefix(const std::filesystem::path& prefix);
std::filesystem::path held_out_prefix(const std::filesystem::path& prefix);

}  // namespace red::data
