// Where samples come from: section [data] and its [data.source.NAME] sections.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "data/sample_ranges.hpp"

namespace red::data {

/// One corpus of token files, [data.source.NAME].
struct SourceConfig {
  std::string name;
  std::filesystem::path tokens;    ///< prefix: PREFIX.bin and PREFIX.idx, "_text_document" added where needed
  std::filesystem::path held_out;  ///< prefix of held-out token files for evaluation; empty: none
  double weight = 1.0;             ///< share of the mixture, relative
};

enum class MissingEod { refuse, add };

enum class SampleKind {
  windows,  ///< cut from text
  pairs,    ///< of inputs and targets
};

struct DataConfig {
  std::filesystem::path tokenizer;  ///< SentencePiece model
  std::vector<SourceConfig> sources;
  SampleKind samples = SampleKind::windows;
  int64_t window = 2048;        ///< tokens of a window, cut from the concatenated documents without overlap
  int64_t input_length = 2048;  ///< of a pair, at most
  int64_t target_length = 512;  ///< of a pair, at most
  bool end_input = true;        ///< the inputs of a pair end with </s>, as the targets do
  bool document_mask = false;   ///< attention stays inside a document
  bool bidirectional_input =
      false;  ///< DecLLM: the first half of the window, or a pair's inputs, see themselves (BiAttn)
  MissingEod missing_eod = MissingEod::refuse;  ///< token files whose documents do not end with [EOD]
  uint64_t seed = 1;                            ///< of the order of samples
  SampleRanges skip_samples;                    ///< that training passes over
  int64_t block = 1024;                         ///< samples in which every source has its exact share
};

}  // namespace red::data
