#include "base/crc32c.hpp"

#include <bit>
#include <cstring>

#if defined(__x86_64__)
#include <nmmintrin.h>
#endif

namespace red {
namespace {

static_assert(std::endian::native == std::endian::little, "eight bytes are taken as they lie in memory");

/// kTables[k][byte]: what a byte with k bytes behind it does to the remainder.
constexpr std::array<std::array<uint32_t, 256>, 8> kTables = [] {
  std::array<std::array<uint32_t, 256>, 8> tables{};
  tables[0] = detail::kCrc32cTable;
  for (std::size_t k = 1; k < tables.size(); ++k) {
    for (std::size_t byte = 0; byte < 256; ++byte) {
      const uint32_t before = tables[k - 1][byte];
      tables[k][byte] = (before >> 8) ^ tables[0][before & 0xFF];
    }
  }
  return tables;
}();

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) uint32_t extend_by_instruction(uint32_t crc, const void* data,
                                                                 std::size_t num_bytes) {
  const auto* next = static_cast<const unsigned char*>(data);
  uint64_t remainder = static_cast<uint32_t>(~crc);
  for (; num_bytes >= sizeof(uint64_t); num_bytes -= sizeof(uint64_t), next += sizeof(uint64_t)) {
    uint64_t word = 0;
    std::memcpy(&word, next, sizeof(word));
    remainder = _mm_crc32_u64(remainder, word);
  }
  auto last = static_cast<uint32_t>(remainder);
  for (; num_bytes > 0; --num_bytes, ++next) last = _mm_crc32_u8(last, *next);
  return ~last;
}
#endif

}  // namespace

namespace detail {

uint32_t extend_crc32c_by_tables(uint32_t crc, const void* data, std::size_t num_bytes) {
  const auto* next = static_cast<const unsigned char*>(data);
  uint32_t remainder = ~crc;
  for (; num_bytes >= 8; num_bytes -= 8, next += 8) {
    uint64_t word = 0;
    std::memcpy(&word, next, sizeof(word));
    word ^= remainder;
    remainder = 0;
    for (std::size_t k = 0; k < 8; ++k) remainder ^= kTables[7 - k][(word >> (8 * k)) & 0xFF];
  }
  for (; num_bytes > 0; --num_bytes, ++next)
    remainder = (remainder >> 8) ^ kTables[0][(remainder ^ *next) & 0xFF];
  return ~remainder;
}

}  // namespace detail

uint32_t extend_crc32c(uint32_t crc, const void* data, std::size_t num_bytes) {
#if defined(__x86_64__)
  static const bool has_instruction = __builtin_cpu_supports("sse4.2");
  if (has_instruction) return extend_by_instruction(crc, data, num_bytes);
#endif
  return detail::extend_crc32c_by_tables(crc, data, num_bytes);
}

}  // namespace red
