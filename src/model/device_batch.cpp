#include "model/device_batch.hpp"

#include <algorithm>

namespace red::model {
namespace {

template <class T>
const T* upload(Stream& stream, Arena& arena, const std::vector<T>& host) {
  if (host.empty()) return nullptr;
  const std::size_t num_bytes = host.size() * sizeof(T);
  const Tensor device = arena.allocate<uint8_t>(1, static_cast<int64_t>(num_bytes));
  copy_to_device(stream, device.data, host.data(), num_bytes);
  return reinterpret_cast<const T*>(device.data);
}

DeviceSequences upload(Stream& stream, Arena& arena, const data::PackedSequences& host) {
  DeviceSequences device{host.num_tokens(),
                         upload(stream, arena, host.ids),
                         upload(stream, arena, host.positions),
                         upload(stream, arena, host.documents),
                         upload(stream, arena, host.offsets),
                         upload(stream, arena, host.row_keys)};
  for (std::size_t b = 1; b < host.offsets.size(); ++b) {
    const int64_t length = host.offsets[b] - host.offsets[b - 1];
    device.longest = std::max(device.longest, length);
    device.shortest = b == 1 ? length : std::min(device.shortest, length);
  }
  return device;
}

}  // namespace

BatchShape BatchShape::of(const data::MicroBatch& batch) {
  return {batch.num_sequences(), batch.encoder.num_tokens(), batch.decoder.num_tokens()};
}

DeviceBatch to_device(Stream& stream, Arena& arena, const data::MicroBatch& batch) {
  DeviceBatch device;
  device.num_sequences = batch.num_sequences();
  device.encoder = upload(stream, arena, batch.encoder);
  device.decoder = upload(stream, arena, batch.decoder);
  device.targets = upload(stream, arena, batch.targets);
  device.loss_mask = upload(stream, arena, batch.loss_mask);
  device.prefixes = upload(stream, arena, batch.prefixes);
  return device;
}

void reserve_device_batch(Arena& arena, const BatchShape& shape) {
  for (const int64_t tokens : {shape.encoder_tokens, shape.decoder_tokens}) {
    for (int i = 0; i < 3; ++i) arena.allocate<int32_t>(1, tokens);  // ids, positions, documents
    arena.allocate<int32_t>(1, shape.sequences + 1);                 // offsets
    arena.allocate<uint8_t>(1, 8 * tokens);                          // row keys
  }
  arena.allocate<int32_t>(1, shape.decoder_tokens);  // targets
  arena.allocate<uint8_t>(1, shape.decoder_tokens);  // loss mask
  arena.allocate<int32_t>(1, shape.sequences);       // prefixes
}

}  // namespace red::model
