#include "model/kv_cache.hpp"

#include <algorithm>
#include <limits>

namespace red::model {

KvCache::KvCache(const CacheShape& shape, int64_t num_layers, int64_t num_heads, int64_t head_dim, bool cross,
                 const BatchShape& capacity, DType dtype, Memory memory)
    : shape_(shape), heads_(num_heads), head_dim_(head_dim), dtype_(dtype), cross_(cross) {
  RED_CHECK(shape.sequences > 0 && shape.decoder_positions > 0 && (!cross || shape.encoder_positions > 0),
            "a cache of {} sequences, {} + {} positions", shape.sequences, shape.encoder_positions,
            shape.decoder_positions);
  self_.head_rows = shape.decoder_positions;
  of_encoder_.head_rows = cross ? shape.encoder_positions : 0;
  const int64_t rows = shape.sequences * num_heads * std::max(self_.head_rows, of_encoder_.head_rows);
  RED_CHECK(rows <= std::numeric_limits<int32_t>::max(), "{} rows of a cache; fewer sequences at a time",
            rows);
  const auto allocate_all = [&] {
    allocate(self_, num_layers, capacity.decoder_tokens);
    if (cross) allocate(of_encoder_, num_layers, capacity.encoder_tokens);
    last_tokens_ = arena_.allocate<int32_t>(1, shape.sequences);
  };
  arena_ = Arena::counting();
  allocate_all();
  arena_ = Arena("key-value cache", arena_.peak(), memory);
  allocate_all();
  host_last_tokens_.reserve(shape.sequences);
}

void KvCache::allocate(Part& part, int64_t num_layers, int64_t num_new) {
  const int64_t rows = shape_.sequences * heads_ * part.head_rows;
  part.keys.clear();
  part.values.clear();
  for (int64_t i = 0; i < num_layers; ++i) {
    part.keys.push_back(arena_.allocate(rows, head_dim_, dtype_));
    part.values.push_back(arena_.allocate(rows, head_dim_, dtype_));
  }
  part.new_rows = arena_.allocate<int32_t>(1, num_new);
  part.offsets = arena_.allocate<int32_t>(1, shape_.sequences);
  part.lengths = arena_.allocate<int32_t>(1, shape_.sequences);
  part.host_rows.reserve(num_new);
  part.host_offsets.reserve(shape_.sequences);
  part.host_lengths.reserve(shape_.sequences);
  part.held.assign(shape_.sequences, 0);
}

void KvCache::begin(std::span<const int32_t> places) {
  RED_CHECK(static_cast<int64_t>(places.size()) <= shape_.sequences, "{} sequences in a cache for {}",
            places.size(), shape_.sequences);
  for (Part* part : {&self_, &of_encoder_}) {
    part->host_rows.clear();
    part->host_offsets.clear();
    part->host_lengths.clear();
  }
  host_last_tokens_.clear();
}

void KvCache::take(Part& part, int32_t place, int64_t count) const {
  RED_CHECK(place >= 0 && place < shape_.sequences, "place {} of {}", place, shape_.sequences);
  const int32_t held = part.held[place];
  RED_CHECK(held + count <= part.head_rows, "place {} holds {} keys of {}: no room for {} more", place, held,
            part.head_rows, count);
  const auto first = static_cast<int32_t>(place * heads_ * part.head_rows);
  part.host_offsets.push_back(first);
  part.host_lengths.push_back(held + static_cast<int32_t>(count));
  for (int32_t i = 0; i < static_cast<int32_t>(count); ++i) part.host_rows.push_back(first + held + i);
  part.held[place] = part.host_lengths.back();
}

void KvCache::begin_prefill(Stream& stream, const data::MicroBatch& batch, std::span<const int32_t> places) {
  RED_CHECK(batch.num_sequences() == static_cast<int64_t>(places.size()), "{} sequences, {} places",
            batch.num_sequences(), places.size());
  begin(places);
  for (std::size_t b = 0; b < places.size(); ++b) {
    const auto count = [&](const data::PackedSequences& side) {
      return side.offsets[b + 1] - side.offsets[b];
    };
    self_.held.at(places[b]) = 0;
    take(self_, places[b], count(batch.decoder));
    host_last_tokens_.push_back(batch.decoder.offsets[b + 1] - 1);
    if (!cross_) continue;
    of_encoder_.held.at(places[b]) = 0;
    take(of_encoder_, places[b], count(batch.encoder));
  }
  decoding_ = false;
  finish(stream);
}

void KvCache::begin_decode(Stream& stream, std::span<const int32_t> places) {
  begin(places);
  for (const int32_t place : places) {
    take(self_, place, 1);
    if (cross_) take(of_encoder_, place, 0);
    host_last_tokens_.push_back(static_cast<int32_t>(host_last_tokens_.size()));
  }
  decoding_ = true;
  finish(stream);
}

void KvCache::upload(Stream& stream, const Part& part) const {
  const auto copy = [&](const Tensor& to, const std::vector<int32_t>& from) {
    RED_CHECK(static_cast<int64_t>(from.size()) <= to.cols, "{} of {}", from.size(), to.cols);
    copy_to_device(stream, to.data, from.data(), from.size() * sizeof(int32_t));
  };
  copy(part.new_rows, part.host_rows);
  copy(part.offsets, part.host_offsets);
  copy(part.lengths, part.host_lengths);
}

void KvCache::finish(Stream& stream) {
  upload(stream, self_);
  if (cross_) upload(stream, of_encoder_);
  copy_to_device(stream, last_tokens_.data, host_last_tokens_.data(),
                 host_last_tokens_.size() * sizeof(int32_t));
}

CachedKeys KvCache::view(const Part& part, std::size_t index, bool any_new) {
  return {part.keys[index],
          part.values[index],
          part.head_rows,
          any_new ? part.new_rows.as<int32_t>() : nullptr,
          part.offsets.as<int32_t>(),
          part.lengths.as<int32_t>()};
}

LayerCache KvCache::layer(std::size_t index) const {
  LayerCache layer;
  layer.self = view(self_, index, true);
  if (cross_) layer.cross = view(of_encoder_, index, !decoding_);
  layer.read = decoding_;
  return layer;
}

}  // namespace red::model
