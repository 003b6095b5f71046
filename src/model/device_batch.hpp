// One micro-batch in device memory: what the layers of a stage read besides activations.
#pragma once

#include "data/sample.hpp"
#include "device/stream.hpp"
#include "ops/attention.hpp"

namespace red::model {

/// How large a micro-batch is, or may become: everything that activations scale with.
struct BatchShape {
  int64_t sequences = 0;
  int64_t encoder_tokens = 0;
  int64_t decoder_tokens = 0;

  static BatchShape of(const data::MicroBatch& batch);
};

/// One side of the batch; pointers into device memory, counts on the host.
struct DeviceSequences {
  int64_t num_tokens = 0;
  const int32_t* ids = nullptr;        ///< (tokens)
  const int32_t* positions = nullptr;  ///< (tokens)
  const int32_t* documents = nullptr;  ///< (tokens), or null: no document mask
  const int32_t* offsets = nullptr;    ///< (sequences + 1)
  const uint64_t* row_keys = nullptr;  ///< (tokens), see data::PackedSequences
  int64_t longest = 0, shortest = 0;   ///< of the sequences
};

struct DeviceBatch {
  int64_t num_sequences = 0;
  DeviceSequences encoder, decoder;
  const int32_t* targets = nullptr;    ///< (decoder tokens)
  const uint8_t* loss_mask = nullptr;  ///< (decoder tokens)
  const int32_t* prefixes = nullptr;   ///< (sequences), or null: all 0
};

/// Copies a micro-batch into memory from `arena`.
DeviceBatch to_device(Stream& stream, Arena& arena, const data::MicroBatch& batch);

/// Takes from `arena` what to_device() takes at most for a batch of this shape.
void reserve_device_batch(Arena& arena, const BatchShape& shape);

}  // namespace red::model
