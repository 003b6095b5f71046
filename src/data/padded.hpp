// Samples from rectangular arrays, the form in which other frameworks and test files keep batches. Padding is
// known by length, never by id: the padding id may also be the start token.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "data/sample.hpp"

namespace red::data {

/// B examples, rows of S and T; entries past an example's length are never looked at. Row-major, all local.
struct PaddedBatch {
  int64_t encoder_width = 0;                  ///< S; 0 for a DecLLM
  int64_t decoder_width = 0;                  ///< T
  std::span<const int32_t> encoder_lengths;   ///< (B), true lengths; empty when S = 0
  std::span<const int32_t> decoder_lengths;   ///< (B)
  std::span<const int32_t> encoder_input;     ///< (B, S)
  std::span<const int32_t> decoder_input;     ///< (B, T)
  std::span<const int32_t> decoder_target;    ///< (B, T)
  std::span<const uint8_t> loss_mask;         ///< (B, T); empty: every true target counts
  std::span<const int32_t> prefixes;          ///< (B); empty: 0
  std::span<const int32_t> encoder_document;  ///< (B, S) or empty
  std::span<const int32_t> decoder_document;  ///< (B, T) or empty
};

/// Fills `samples` with B samples of ids first_id, first_id + 1, ..., reusing their memory. Throws DataError
/// naming the array or the example when sizes or lengths do not fit.
void from_padded(const PaddedBatch& batch, uint64_t first_id, std::vector<Sample>& samples);

}  // namespace red::data
