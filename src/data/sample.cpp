// Packing: samples become one run of tokens per side, and every length is checked here once, so that the
// model may trust offsets and documents without looking again.
#include "data/sample.hpp"

#include <limits>
#include <string_view>

#include "base/error.hpp"
#include "data/sample_digest.hpp"

namespace red::data {
namespace {

bool has_documents(const Sample& sample) {
  return !sample.encoder_document.empty() || !sample.decoder_document.empty();
}

void check_documents(const Sample& sample, std::string_view side, std::span<const int32_t> documents,
                     std::size_t length) {
  if (documents.size() != length) {
    throw DataError("sample {}: {} {} tokens but {} document ids; every token needs one", sample.id, length,
                    side, documents.size());
  }
  for (std::size_t i = 1; i < documents.size(); ++i) {
    if (documents[i] < documents[i - 1]) {
      throw DataError("sample {}: {} document ids fall from {} to {} at token {}; they must never decrease",
                      sample.id, side, documents[i - 1], documents[i], i);
    }
  }
}

void check_sample(const Sample& sample, bool documents) {
  const std::size_t length = sample.decoder_input.size();
  if (sample.decoder_target.size() != length || sample.loss_mask.size() != length) {
    throw DataError("sample {}: {} decoder inputs, {} targets and {} loss mask entries; the three must agree",
                    sample.id, length, sample.decoder_target.size(), sample.loss_mask.size());
  }
  if (sample.prefix < 0 || static_cast<std::size_t>(sample.prefix) > length) {
    throw DataError("sample {}: prefix {} is outside 0 ... {}, its number of decoder inputs", sample.id,
                    sample.prefix, length);
  }
  if (has_documents(sample) != documents) {
    throw DataError("sample {} has {}document ids, the first sample of its batch {}; all must or none",
                    sample.id, documents ? "no " : "", documents ? "has them" : "has none");
  }
  if (documents) {
    check_documents(sample, "encoder", sample.encoder_document, sample.encoder_input.size());
    check_documents(sample, "decoder", sample.decoder_document, length);
  }
}

/// No two tokens of one side have the same in the first 2^33 samples, of up to 2^31 tokens each.
constexpr uint64_t row_key(uint64_t sample, std::size_t token) {
  return sample << 31 | static_cast<uint64_t>(token);
}

void clear_sequences(PackedSequences& side) {
  side.ids.clear();
  side.positions.clear();
  side.documents.clear();
  side.row_keys.clear();
  side.offsets.assign(1, 0);
}

void append_sequence(PackedSequences& side, const Sample& sample, std::span<const int32_t> ids,
                     std::span<const int32_t> documents, int64_t first_position) {
  constexpr auto limit = static_cast<std::size_t>(std::numeric_limits<int32_t>::max());
  if (ids.size() > limit - side.ids.size()) {
    throw DataError("sample {}: its micro-batch has more than 2^31 - 1 tokens; lower train.micro_batch",
                    sample.id);
  }
  side.ids.insert(side.ids.end(), ids.begin(), ids.end());
  side.documents.insert(side.documents.end(), documents.begin(), documents.end());
  for (std::size_t i = 0; i < ids.size(); ++i) {
    side.positions.push_back(static_cast<int32_t>(first_position + static_cast<int64_t>(i)));
    side.row_keys.push_back(row_key(sample.id, i));
  }
  side.offsets.push_back(static_cast<int32_t>(side.ids.size()));
}

}  // namespace

void Sample::clear() {
  id = 0;
  source = 0;
  source_item = 0;
  prefix = 0;
  encoder_input.clear();
  decoder_input.clear();
  decoder_target.clear();
  loss_mask.clear();
  encoder_document.clear();
  decoder_document.clear();
}

void pack(std::span<const Sample> samples, DecoderPositions positions, MicroBatch& batch) {
  clear_sequences(batch.encoder);
  clear_sequences(batch.decoder);
  batch.targets.clear();
  batch.loss_mask.clear();
  batch.prefixes.clear();
  batch.sample_ids.clear();
  batch.num_targets = 0;
  batch.digest = 0;
  const bool documents = !samples.empty() && has_documents(samples.front());
  bool any_prefix = false;
  for (const Sample& sample : samples) {
    check_sample(sample, documents);
    const auto encoder_length = static_cast<int64_t>(sample.encoder_input.size());
    append_sequence(batch.encoder, sample, sample.encoder_input, sample.encoder_document, 0);
    append_sequence(batch.decoder, sample, sample.decoder_input, sample.decoder_document,
                    positions == DecoderPositions::after_encoder ? encoder_length : 0);
    batch.targets.insert(batch.targets.end(), sample.decoder_target.begin(), sample.decoder_target.end());
    batch.loss_mask.insert(batch.loss_mask.end(), sample.loss_mask.begin(), sample.loss_mask.end());
    batch.prefixes.push_back(sample.prefix);
    batch.sample_ids.push_back(sample.id);
    batch.digest += sample_hash(sample);
    any_prefix = any_prefix || sample.prefix != 0;
    for (const uint8_t counts : sample.loss_mask) batch.num_targets += counts != 0 ? 1 : 0;
  }
  if (!any_prefix) batch.prefixes.clear();
}

}  // namespace red::data
