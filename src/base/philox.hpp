// Philox4x32-10 (Salmon et al., SC 2011): random numbers as a pure function of (key, counter). Whoever needs
// number i of stream s computes it, on any rank, in any order; nothing has a hidden state.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <numbers>
#include <string_view>

namespace red {

using PhiloxBlock = std::array<uint32_t, 4>;

/// Four random words for a 64-bit key and a 128-bit counter (low, high).
constexpr PhiloxBlock philox(uint64_t key, uint64_t counter_low, uint64_t counter_high = 0) {
  constexpr uint32_t multiplier0 = 0xD2511F53, multiplier1 = 0xCD9E8D57;
  constexpr uint32_t weyl0 = 0x9E3779B9, weyl1 = 0xBB67AE85;
  uint32_t k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
  PhiloxBlock x = {static_cast<uint32_t>(counter_low), static_cast<uint32_t>(counter_low >> 32),
                   static_cast<uint32_t>(counter_high), static_cast<uint32_t>(counter_high >> 32)};
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = static_cast<uint64_t>(multiplier0) * x[0];
    const uint64_t p1 = static_cast<uint64_t>(multiplier1) * x[2];
    x = {static_cast<uint32_t>(p1 >> 32) ^ x[1] ^ k0, static_cast<uint32_t>(p1),
         static_cast<uint32_t>(p0 >> 32) ^ x[3] ^ k1, static_cast<uint32_t>(p0)};
    k0 += weyl0;
    k1 += weyl1;
  }
  return x;
}

/// [0, 1), 24 bits.
constexpr float uniform_float(uint32_t bits) {
  return static_cast<float>(bits >> 8) * 0x1.0p-24F;
}

/// A standard normal deviate from two words, by Box and Muller.
inline double normal_from(uint32_t a, uint32_t b) {
  const double u = (static_cast<double>(a) + 1.0) * 0x1.0p-32;  // (0, 1]
  const double v = static_cast<double>(b) * 0x1.0p-32;
  return std::sqrt(-2.0 * std::log(u)) * std::cos(2.0 * std::numbers::pi * v);
}

/// FNV-1a, so that a stream can be keyed by a name; fixed for ever, because initial weights depend on it.
constexpr uint64_t hash_name(std::string_view name, uint64_t seed = 0) {
  uint64_t h = 0xcbf29ce484222325ULL ^ seed;
  for (const char c : name) h = (h ^ static_cast<uint8_t>(c)) * 0x100000001b3ULL;
  return h;
}

}  // namespace red
