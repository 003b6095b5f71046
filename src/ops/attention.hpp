// Scaled dot-product attention over packed sequences, tiled with an online softmax: no (T, S) matrix of
// scores is ever in memory (model-and-recipe "One attention", 4). Shapes: Tq query tokens and Tk key tokens
// of all sequences together, h heads, k head width; q, o, dq, do (Tq, h k); keys, values, dk, dv (Tk, h k),
// all fp32 or all bf16, any row strides; lse, delta (h, Tq), fp32. Softmax and sums are fp32. Sequence b owns
// query tokens q_offsets[b] ... q_offsets[b+1] - 1 and key tokens k_offsets[b] ... All pointers are device
// memory.
#pragma once

#include <cstddef>
#include <cstdint>

#include "device/stream.hpp"
#include "device/tensor.hpp"

namespace red::ops {

struct AttentionLayout {
  int64_t num_sequences = 0;
  const int32_t* q_offsets = nullptr;  ///< (num_sequences + 1)
  const int32_t* k_offsets = nullptr;  ///< (num_sequences + 1); a sequence may have no keys
  int64_t num_heads = 0;
  // What the host knows of the lengths; 0: nothing. Only a library on a GPU wants to know.
  int64_t longest_q = 0, longest_k = 0;  ///< of any sequence, or more
  int64_t shortest = 0;                  ///< of queries and of keys of any sequence

  // Keys and values in a cache (forward only): of each sequence anywhere, with room behind them, and each
  // head's keys one after another. Keys and values are then (rows, k).
  const int32_t* k_lengths = nullptr;  ///< (num_sequences) keys of each; null: they end where the next begin
  int64_t k_head_rows = 0;  ///< rows from a key's head to its next head; 0: heads are columns, (Tk, h k)
};

/// Key j of a sequence is visible to its query i when all of these hold. A query that sees nothing has output
/// 0, gradient 0 and lse = -inf.
struct AttentionMask {
  bool causal = false;  ///< j <= i, or both are below the sequence's prefix
  const int32_t* prefix =
      nullptr;  ///< (num_sequences); with causal: the first prefix[b] tokens see each other
  const int32_t* q_documents =
      nullptr;  ///< (Tq); with k_documents: the same document. Ids never decrease along a
  const int32_t* k_documents = nullptr;  ///< (Tk)  sequence, so blocks of other documents can be skipped
};

/// Whether the program has cuDNN's attention (AttentionChoice::cudnn).
bool has_attention_library();

/// o = softmax(q k^T / sqrt(k)) v, lse = log of the softmax's denominator. Sequences of few queries, as when
/// one token is generated at a time, read their keys once and are split over the threads by keys too.
void attention_forward(Stream& stream, const Tensor& o, const Tensor& lse, const Tensor& q,
                       const Tensor& keys, const Tensor& values, const AttentionLayout& layout,
                       const AttentionMask& mask);

/// delta = sum over the head of do * o. With inv_rms, (Tq, h), or (Tq, 1) for a norm over all heads together:
/// o holds head_norm's result, and o / inv_rms is meant.
void attention_delta(Stream& stream, const Tensor& delta, const Tensor& d_o, const Tensor& o,
                     const Tensor* inv_rms);

/// What attention_delta was made of, for a library that makes its own.
struct AttentionOutput {
  const Tensor* o = nullptr;
  const Tensor* inv_rms = nullptr;
};

/// dq, dk, dv (overwritten) from d_o; probabilities are made again from q, keys and lse.
void attention_backward(Stream& stream, const Tensor& dq, const Tensor& dk, const Tensor& dv,
                        const Tensor& d_o, const Tensor& delta, const Tensor& q, const Tensor& keys,
                        const Tensor& values, const Tensor& lse, const AttentionLayout& layout,
                        const AttentionMask& mask, const AttentionOutput& output = {});

/// Probe: probabilities (num_rows, S) of one sequence and head for its query rows first_row ..., made again
/// from q, keys and lse; S is the sequence's number of keys.
void attention_probabilities(Stream& stream, const Tensor& probabilities, const Tensor& q, const Tensor& keys,
                             const Tensor& lse, const AttentionLayout& layout, const AttentionMask& mask,
                             int64_t sequence, int64_t head, int64_t first_row);

/// Bytes that these ops take at most from a stream's scratch memory, for the plan of memory. On a CPU about
/// 0.8 MiB per thread at k = 128, and with bf16 an fp32 dq of all queries; on a GPU 16 bytes for each query,
/// or the parts of few queries' sums. longest_keys: of any one sequence.
std::size_t attention_scratch_bytes(int num_threads, int64_t num_heads, int64_t head_dim,
                                    int64_t num_sequences, int64_t longest_keys, DType dtype = DType::fp32,
                                    int64_t num_queries = 0);

}  // namespace red::ops
