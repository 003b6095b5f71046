// From text to token files: documents (or pairs, see data/pair_source.hpp) are read, encoded by several
// threads in order, each ended by [EOD], then written in a seeded order of their own, a share of them as
// held-out files. Memory is bounded whatever the input: what lies between the two passes lies on disk.
#pragma once

#include <cstdint>
#include <functional>
#include <string_view>

#include "data/corpus_reader.hpp"
#include "data/token_sidecar.hpp"
#include "data/tokenizer.hpp"

namespace red::data {

struct TokenBuildOptions {
  CorpusOptions corpus;
  /// Not empty: each line is a pair, corpus.field its inputs and this its targets. Then all inputs are JSON
  /// Lines.
  std::string targets_field;
  std::filesystem::path prefix;  ///< PREFIX_text_document.*, PREFIX_heldout_text_document.*
  int workers = 1;
  bool shuffle = true;  ///< documents in a seeded order; false: as they come
  uint64_t seed = 1;
  double held_out = 0.0;  ///< share of the documents that goes to the held-out files; rounded, at least one
  int64_t max_bad_lines = 0;
};

struct TokenBuildSummary {
  TokenStatistics training, held_out;
  int64_t bad_lines = 0;
};

/// How far the build is.
struct TokenBuildStage {
  std::string_view name;  ///< "encoding", "writing"
  uint64_t done = 0;      ///< encoding: bytes of the input files; writing: documents
  uint64_t total = 0;
  int64_t tokens = 0;  ///< so far in this stage
};
using TokenBuildProgress = std::function<void(const TokenBuildStage&)>;

/// Writes .bin, .idx and .json of each prefix. Throws DataError (bad lines, bad UTF-8, no document), IoError;
/// then nothing new is under a final name.
TokenBuildSummary build_token_files(const Tokenizer& tokenizer, const TokenBuildOptions& options,
                                    const TokenBuildProgress& progress = {});

/// Where the files of a prefix lie.
std::filesystem::path training_prefix(const std::filesystem::path& prefix);
std::filesystem::path held_out_prefix(const std::filesystem::path& prefix);

}  // namespace red::data
