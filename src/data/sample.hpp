// A sample: one training or evaluation example, true tokens only. Whatever makes samples (windows of a
// corpus, pairs of input and target, a golden file) hides behind SampleProvider; whatever consumes them sees
// packed micro-batches.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace red::data {

struct Sample {
  uint64_t id = 0;                      ///< global sample index; part of each step's digest
  int32_t source = 0;                   ///< which source it came from
  uint64_t source_item = 0;             ///< which window or pair of its source; part of each step's digest
  std::vector<int32_t> encoder_input;   ///< (S), empty for a DecLLM
  std::vector<int32_t> decoder_input;   ///< (T), the target shifted right behind the start token
  std::vector<int32_t> decoder_target;  ///< (T)
  std::vector<uint8_t> loss_mask;       ///< (T), 1 where the target counts
  int32_t prefix = 0;                   ///< DecLLM: the first `prefix` decoder inputs see each other (BiAttn)
  std::vector<int32_t> encoder_document;  ///< (S) document ids, never decreasing; empty: no document mask
  std::vector<int32_t> decoder_document;  ///< (T)

  void clear();  ///< empties, keeps capacity
};

/// Lengths of the longest samples, in tokens; encoder 0 for a DecLLM.
struct SampleLengths {
  int64_t encoder = 0;
  int64_t decoder = 0;
};

/// Samples by global index. A sample is a pure function of (provider, index): any rank may ask for any index,
/// in any order, and gets the same; that is why layouts see the same data and a resume costs nothing.
class SampleProvider {
 public:
  virtual ~SampleProvider() = default;
  /// Fills `sample`, reusing its memory.
  virtual void get(uint64_t index, Sample& sample) const = 0;
  virtual int64_t max_encoder_length() const = 0;
  virtual int64_t max_decoder_length() const = 0;
  virtual std::vector<std::string> source_names() const = 0;
  /// By source, what it holds, in words that differ where its samples do; empty: nothing that could change. A
  /// checkpoint keeps them, so that a resume on other data is noticed.
  virtual std::vector<std::string> source_contents() const { return {}; }
};

/// One side of a packed micro-batch: all sequences one after another.
struct PackedSequences {
  std::vector<int32_t> ids;        ///< (tokens)
  std::vector<int32_t> positions;  ///< (tokens), rotary positions
  std::vector<int32_t> documents;  ///< (tokens) or empty
  std::vector<int32_t> offsets;    ///< (sequences + 1)
  std::vector<uint64_t> row_keys;  ///< (tokens), of sample and place in it: what dropout depends on
  int64_t num_tokens() const { return static_cast<int64_t>(ids.size()); }
};

struct MicroBatch {
  PackedSequences encoder, decoder;
  std::vector<int32_t> targets;      ///< (decoder tokens)
  std::vector<uint8_t> loss_mask;    ///< (decoder tokens)
  std::vector<int32_t> prefixes;     ///< (sequences), or empty when all are 0
  std::vector<uint64_t> sample_ids;  ///< (sequences)
  int64_t num_targets = 0;           ///< tokens that count in the loss
  uint64_t digest = 0;               ///< sum of sample_hash(); sums over a step to its digest
  int64_t num_sequences() const { return static_cast<int64_t>(sample_ids.size()); }
};

/// Where decoder positions begin: after the sample's own encoder length (the recipe), or at 0.
enum class DecoderPositions { after_encoder, from_zero };

/// Packs samples into `batch`, reusing its memory. All samples have documents or none. Throws DataError
/// naming the sample when lengths disagree.
void pack(std::span<const Sample> samples, DecoderPositions positions, MicroBatch& batch);

}  // namespace red::data
