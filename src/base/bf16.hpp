// bf16: the upper half of an fp32 number, with its range and 8 bits of precision. A type of storage: values
// become fp32 for arithmetic and are rounded once when a result is stored.
#pragma once

#include <bit>
#include <cstdint>

namespace red {

struct bf16 {  // NOLINT(readability-identifier-naming): named as the standard's number types are
  uint16_t bits = 0;

  bf16() = default;
  /// To the nearest, ties to even. Infinities stay, too large values become one, and NaN stays NaN.
  constexpr explicit bf16(float value) : bits(round(std::bit_cast<uint32_t>(value))) {}
  /// Exact.
  constexpr operator float() const {  // NOLINT(google-explicit-constructor): nothing can get lost
    return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16U);
  }

 private:
  static constexpr uint16_t round(uint32_t x) {
    // Rounding could turn a NaN into an infinity; a quiet one keeps its upper half.
    if ((x & 0x7FFFFFFFU) > 0x7F800000U) return static_cast<uint16_t>((x | 0x00400000U) >> 16U);
    return static_cast<uint16_t>((x + 0x7FFFU + ((x >> 16U) & 1U)) >> 16U);
  }
};

}  // namespace red
