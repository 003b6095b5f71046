// CRC-32C (Castagnoli: polynomial 0x1EDC6F41, reflected, all ones before and after), as RFC 3720 B.4 has it:
// of records at compile time or run time a byte at a time, of bulk eight bytes at a time by the processor's
// own instruction (SSE4.2) or by tables, with the same result.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace red {

namespace detail {

inline constexpr std::array<uint32_t, 256> kCrc32cTable = [] {
  std::array<uint32_t, 256> table{};
  for (uint32_t byte = 0; byte < table.size(); ++byte) {
    uint32_t remainder = byte;
    for (int bit = 0; bit < 8; ++bit)
      remainder = (remainder >> 1) ^ ((remainder & 1) != 0 ? 0x82F63B78U : 0U);
    table[byte] = remainder;
  }
  return table;
}();

/// What extend_crc32c() does where the processor has no instruction for it.
uint32_t extend_crc32c_by_tables(uint32_t crc, const void* data, std::size_t num_bytes);

}  // namespace detail

constexpr uint32_t crc32c(std::string_view bytes) {
  uint32_t crc = ~0U;
  for (const char c : bytes) crc = (crc >> 8) ^ detail::kCrc32cTable[(crc ^ static_cast<uint8_t>(c)) & 0xFF];
  return ~crc;
}

/// The CRC of what `crc` is of with these bytes behind it; 0 is the CRC of nothing. For bulk.
uint32_t extend_crc32c(uint32_t crc, const void* data, std::size_t num_bytes);

}  // namespace red
