// Samples as pairs, for instruction tuning: inputs are read, targets are predicted. Each document of the
// token files is a pair, its two sequences are the inputs and the targets with the final [EOD]. Nothing is
// packed: a pair is a sample of its own length.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "data/item_source.hpp"

namespace red::data {

/// How a pair becomes a sample. Longer inputs and targets lose their ends; the closing </s> is never lost.
/// The targets' </s> stands in place of the file's [EOD].
struct PairShape {
  bool has_encoder = true;      ///< inputs to the encoder; otherwise before the targets in the decoder
  bool bidirectional = false;   ///< DecLLM with BiAttn: input tokens see each other
  bool end_input = true;        ///< inputs end with </s> as well
  int64_t input_length = 2048;  ///< longest inputs, </s> included where they have it
  int64_t target_length = 512;  ///< longest targets, </s> included

  SampleLengths lengths() const {
    return has_encoder ? SampleLengths{input_length, target_length}
                       : SampleLengths{0, input_length + target_length};
  }
};

/// The shape the configuration asks for. Throws ConfigError for what pairs cannot have.
PairShape pair_shape(const DataConfig& config, bool has_encoder);

class PairSource final : public ItemSource {
 public:
  /// Throws DataError when the documents are no pairs or there is none.
  PairSource(std::string name, TokenStream stream, const SpecialIds& ids, const PairShape& shape);

  int64_t num_items() const override { return stream().file().num_documents(); }
  /// Throws DataError for a pair without inputs where nothing else would stand in the encoder.
  void cut(int64_t item, Sample& sample) const override;
  std::pair<int64_t, int64_t> documents(int64_t item) const override { return {item, item}; }
  std::string describe() const override;

 private:
  struct Range {
    int64_t first = 0, count = 0;  ///< tokens
  };
  Range inputs(int64_t pair) const;
  Range targets(int64_t pair) const;  ///< without [EOD]
  void append(const Range& range, int64_t at_most, std::vector<int32_t>& ids) const;
  int64_t input_room() const { return shape_.input_length - (shape_.end_input ? 1 : 0); }
  int64_t target_room() const { return shape_.target_length - 1; }

  int32_t bos_, eos_;
  PairShape shape_;
};

/// The pairs of the token files at `prefix`. Throws DataError as TokenFile and TokenStream do, and for files
/// of another tokenizer.
std::unique_ptr<PairSource> open_pairs(const std::string& name, const std::filesystem::path& prefix,
                                       const SpecialIds& ids, const PairShape& shape);

}  // namespace red::data
