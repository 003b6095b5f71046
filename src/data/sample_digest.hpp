// A digest of which samples a step held: a sum of one hash per sample, so that ranks and micro-batches only
// add (modulo 2^64) and any split of the same samples gives the same digest.
#pragma once

#include <array>
#include <cstdint>

#include "base/philox.hpp"
#include "data/sample.hpp"

namespace red::data {

inline uint64_t sample_hash(const Sample& sample) {
  // Two rounds of Philox, so that neither number can make up for the other.
  const PhiloxBlock a =
      philox(hash_name("data.sample_digest"), sample.id, static_cast<uint64_t>(sample.source));
  const PhiloxBlock b = philox(static_cast<uint64_t>(a[1]) << 32 | a[0], sample.source_item);
  return static_cast<uint64_t>(b[1]) << 32 | b[0];
}

/// A digest as four whole numbers below 2^16, for all-reduces that know no 64-bit integers: sums of up to
/// 32,767 ranks stay exact in int32.
inline std::array<int32_t, 4> digest_lanes(uint64_t digest) {
  std::array<int32_t, 4> lanes{};
  for (std::size_t i = 0; i < 4; ++i) lanes[i] = static_cast<int32_t>(digest >> (16 * i) & 0xFFFF);
  return lanes;
}

/// The digest from summed lanes; carries go into the next lane.
inline uint64_t digest_from_lanes(const std::array<int32_t, 4>& lanes) {
  uint64_t digest = 0;
  for (std::size_t i = 0; i < 4; ++i) digest += static_cast<uint64_t>(lanes[i]) << (16 * i);
  return digest;
}

}  // namespace red::data
