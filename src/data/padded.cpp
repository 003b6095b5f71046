#include "data/padded.hpp"

#include <string_view>

#include "base/error.hpp"

namespace red::data {
namespace {

void check_size(std::string_view name, std::size_t size, int64_t rows, int64_t width, bool optional) {
  if (optional && size == 0) return;
  if (size != static_cast<std::size_t>(rows * width)) {
    throw DataError("padded batch: {} has {} entries, {} rows of {} need {}", name, size, rows, width,
                    rows * width);
  }
}

void check_lengths(std::string_view name, std::span<const int32_t> lengths, int64_t width) {
  for (std::size_t i = 0; i < lengths.size(); ++i) {
    if (lengths[i] < 0 || lengths[i] > width) {
      throw DataError("padded batch: example {}: {} {} is outside 0 ... {}", i, name, lengths[i], width);
    }
  }
}

void check_batch(const PaddedBatch& batch) {
  const auto rows = static_cast<int64_t>(batch.decoder_lengths.size());
  const int64_t encoder = batch.encoder_width, decoder = batch.decoder_width;
  check_size("encoder_lengths", batch.encoder_lengths.size(), rows, 1, encoder == 0);
  check_size("encoder_input", batch.encoder_input.size(), rows, encoder, false);
  check_size("decoder_input", batch.decoder_input.size(), rows, decoder, false);
  check_size("decoder_target", batch.decoder_target.size(), rows, decoder, false);
  check_size("loss_mask", batch.loss_mask.size(), rows, decoder, true);
  check_size("prefixes", batch.prefixes.size(), rows, 1, true);
  check_size("encoder_document", batch.encoder_document.size(), rows, encoder, true);
  check_size("decoder_document", batch.decoder_document.size(), rows, decoder, true);
  check_lengths("encoder length", batch.encoder_lengths, encoder);
  check_lengths("decoder length", batch.decoder_lengths, decoder);
}

template <class T>
void copy_row(std::span<const T> array, int64_t row, int64_t width, int64_t length, std::vector<T>& out) {
  if (array.empty()) return;
  const auto* first = array.data() + row * width;
  out.assign(first, first + length);
}

}  // namespace

void from_padded(const PaddedBatch& batch, uint64_t first_id, std::vector<Sample>& samples) {
  check_batch(batch);
  samples.resize(batch.decoder_lengths.size());
  for (std::size_t i = 0; i < samples.size(); ++i) {
    Sample& sample = samples[i];
    sample.clear();
    sample.id = first_id + i;
    const auto row = static_cast<int64_t>(i);
    const int64_t encoder = batch.encoder_lengths.empty() ? 0 : batch.encoder_lengths[i];
    const int64_t decoder = batch.decoder_lengths[i];
    copy_row(batch.encoder_input, row, batch.encoder_width, encoder, sample.encoder_input);
    copy_row(batch.encoder_document, row, batch.encoder_width, encoder, sample.encoder_document);
    copy_row(batch.decoder_input, row, batch.decoder_width, decoder, sample.decoder_input);
    copy_row(batch.decoder_target, row, batch.decoder_width, decoder, sample.decoder_target);
    copy_row(batch.decoder_document, row, batch.decoder_width, decoder, sample.decoder_document);
    copy_row(batch.loss_mask, row, batch.decoder_width, decoder, sample.loss_mask);
    if (batch.loss_mask.empty()) sample.loss_mask.assign(static_cast<std::size_t>(decoder), 1);
    if (!batch.prefixes.empty()) sample.prefix = batch.prefixes[i];
  }
}

}  // namespace red::data
