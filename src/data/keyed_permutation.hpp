// A permutation of 0 ... size - 1 as a pure function of a key: a Feistel network over Philox on the next
// power of two, walked again while it lands outside (cycle walking, fewer than two walks expected). No table,
// so one element costs the same whatever the size, and a resume needs no state.
#pragma once

#include <cstdint>

#include "base/check.hpp"
#include "base/philox.hpp"

namespace red::data {

class KeyedPermutation {
 public:
  /// Different keys or tweaks give unrelated permutations. 1 <= size <= 2^62.
  KeyedPermutation(uint64_t size, uint64_t key, uint64_t tweak) : size_(size), key_(key), tweak_(tweak) {
    RED_CHECK(size >= 1 && size <= (1ULL << 62), "size {}", size);
    const int bits = size == 1 ? 0 : 64 - __builtin_clzll(size - 1);
    low_bits_ = bits / 2;
    high_bits_ = bits - low_bits_;
  }

  uint64_t size() const { return size_; }

  uint64_t operator()(uint64_t index) const {
    RED_CHECK(index < size_, "index {} of {}", index, size_);
    do {
      index = mix(index);
    } while (index >= size_);
    return index;
  }

 private:
  /// Each half in turn is masked by a function of the other: a bijection whatever the function.
  uint64_t mix(uint64_t index) const {
    uint64_t low = index & mask(low_bits_), high = index >> low_bits_;
    for (uint64_t round = 0; round < kNumRounds; round += 2) {
      high ^= random(low, round) & mask(high_bits_);
      low ^= random(high, round + 1) & mask(low_bits_);
    }
    return high << low_bits_ | low;
  }
  uint64_t random(uint64_t half, uint64_t round) const {
    const PhiloxBlock block = philox(key_, half ^ round << 56, tweak_);
    return static_cast<uint64_t>(block[1]) << 32 | block[0];
  }
  static constexpr uint64_t mask(int bits) { return (1ULL << bits) - 1; }

  static constexpr uint64_t kNumRounds = 8;
  uint64_t size_, key_, tweak_;
  int low_bits_ = 0, high_bits_ = 0;
};

}  // namespace red::data
