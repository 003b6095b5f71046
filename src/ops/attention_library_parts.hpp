// Private to attention on a GPU: what a library that knows sequences by their lengths and starts is given,
// and what it gives back. Shapes: B sequences, Tq query tokens, h heads of k columns, S the longest sequence
// of queries; offsets (B + 1).
#pragma once

#include <cstdint>

#include "device/stream.hpp"
#include "device/tensor.hpp"

namespace red::ops {

/// Matrices whose rows are tokens, in the order in which their starts are written.
inline constexpr int kMostRaggedMatrices = 8;

struct RaggedMatrices {
  int64_t row_stride[kMostRaggedMatrices];
  bool of_keys[kMostRaggedMatrices];  ///< rows are key tokens
  int count = 0;
};

/// lengths (2, B): of each sequence's queries, then keys; starts (count, B + 1): the element, counted from
/// the matrix's first, at which each sequence begins.
void ragged_sequences(Stream& stream, const Tensor& lengths, const Tensor& starts, const int32_t* q_offsets,
                      const int32_t* k_offsets, const RaggedMatrices& matrices);

/// lse (h, Tq) from statistics (B h, S), and back; what lies behind a sequence's end is left alone.
void lse_from_statistics(Stream& stream, const Tensor& lse, const Tensor& statistics,
                         const int32_t* q_offsets);
void statistics_from_lse(Stream& stream, const Tensor& statistics, const Tensor& lse,
                         const int32_t* q_offsets);

/// out = o / inv_rms, bf16 (Tq, h k), with inv_rms (Tq, h) or (Tq, 1): what head_norm made o of.
void undo_head_norm(Stream& stream, const Tensor& out, const Tensor& o, const Tensor& inv_rms,
                    int64_t num_heads);

}  // namespace red::ops
