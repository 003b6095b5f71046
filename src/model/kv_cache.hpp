// Keys and values that a decoder reads again for every token it writes: of self-attention, one more with each
// token, and of cross-attention, those of the encoder's output, made once per prompt. A stage keeps them for
// its own decoder layers and its tensor rank's heads, normalised and rotated, in memory that is taken when
// the stage is made. A sequence has a place in the cache; of each place and head the keys lie one after
// another (docs/generation.md). Shapes: h own heads, k head width, B sequences of a pass.
#pragma once

#include <span>
#include <vector>

#include "data/sample.hpp"
#include "model/device_batch.hpp"

namespace red::model {

/// How much a cache holds. Without sequences there is none.
struct CacheShape {
  int64_t sequences = 0;          ///< places
  int64_t decoder_positions = 0;  ///< of each: start token, a DecLLM's prompt, and new tokens but the last
  int64_t encoder_positions = 0;  ///< of each: a RedLLM's prompt
};

/// One attention block's part of the cache, as a pass uses it. Rows are counted for the first head; another
/// head's lie head_rows further on. Pointers into device memory.
struct CachedKeys {
  Tensor keys, values;                ///< (places h head_rows, k); empty: there is no cache
  int64_t head_rows = 0;              ///< the most keys of a place
  const int32_t* new_rows = nullptr;  ///< (new tokens of the pass) where they go; null: none are new
  const int32_t* offsets = nullptr;   ///< (B) row of the sequence's first key
  const int32_t* lengths = nullptr;   ///< (B) keys of the sequence, new ones included
};

/// One layer's part of the cache in a pass.
struct LayerCache {
  CachedKeys self, cross;
  bool read = false;  ///< attention reads the cache; otherwise the pass's own keys, which are only stored
};

class KvCache {
 public:
  /// Of a stage that goes through at most `capacity` at a time. dtype: fp32 or bf16.
  KvCache(const CacheShape& shape, int64_t num_layers, int64_t num_heads, int64_t head_dim, bool cross,
          const BatchShape& capacity, DType dtype, Memory memory);

  /// Before a pass over whole prompts: sequence b of `batch` takes place places[b], whatever was there.
  void begin_prefill(Stream& stream, const data::MicroBatch& batch, std::span<const int32_t> places);
  /// Before a pass over one new token of each sequence b, which goes on in place places[b]. Throws LogicError
  /// where a place is full.
  void begin_decode(Stream& stream, std::span<const int32_t> places);

  /// For the pass that was begun last.
  LayerCache layer(std::size_t index) const;
  /// (B) the last token of each sequence, among all tokens of the pass; device memory.
  const int32_t* last_tokens() const { return last_tokens_.as<int32_t>(); }

  const CacheShape& shape() const { return shape_; }
  std::size_t num_bytes() const { return arena_.capacity(); }

 private:
  /// Of one kind of attention: tensors of every layer, and where a pass finds its sequences.
  struct Part {
    int64_t head_rows = 0;
    std::vector<Tensor> keys, values;
    Tensor new_rows, offsets, lengths;
    std::vector<int32_t> host_rows, host_offsets, host_lengths;
    std::vector<int32_t> held;  ///< (places) keys so far
  };
  void allocate(Part& part, int64_t num_layers, int64_t num_new);
  /// `count` new keys for a place: where they go, and what the place then holds.
  void take(Part& part, int32_t place, int64_t count) const;
  void upload(Stream& stream, const Part& part) const;
  void begin(std::span<const int32_t> places);
  void finish(Stream& stream);
  static CachedKeys view(const Part& part, std::size_t index, bool any_new);

  CacheShape shape_;
  int64_t heads_, head_dim_;
  DType dtype_;
  bool cross_;
  Arena arena_;
  Part self_, of_encoder_;
  Tensor last_tokens_;
  std::vector<int32_t> host_last_tokens_;
  bool decoding_ = false;
};

}  // namespace red::model
