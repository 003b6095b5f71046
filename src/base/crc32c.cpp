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
/// A linear map of remainders: what it makes of each of their bits.
using LinearMap = std::array<uint32_t, 32>;

constexpr uint32_t apply(const LinearMap& map, uint32_t remainder) {
  uint32_t sum = 0;
  for (std::size_t bit = 0; bit < map.size(); ++bit) sum ^= map[bit] & (0U - ((remainder >> bit) & 1));
  return sum;
}

constexpr std::size_t kLogLaneBytes = 12, kLaneBytes = std::size_t{1} << kLogLaneBytes;

/// What a lane of zero bytes does to a remainder.
constexpr LinearMap kZeroLane = [] {
  LinearMap map{};
  for (std::size_t bit = 0; bit < map.size(); ++bit) {
    const uint32_t before = 1U << bit;
    map[bit] = (before >> 8) ^ detail::kCrc32cTable[before & 0xFF];
  }
  for (std::size_t i = 0; i < kLogLaneBytes; ++i) {
    LinearMap twice{};
    for (std::size_t bit = 0; bit < map.size(); ++bit) twice[bit] = apply(map, map[bit]);
    map = twice;
  }
  return map;
}();

uint64_t word_at(const unsigned char* bytes) {
  uint64_t word = 0;
  std::memcpy(&word, bytes, sizeof(word));
  return word;
}

/// Three lanes at once: the instruction begins each cycle and takes three. Since a CRC is linear, lanes are
/// begun with zero and put together by what the bytes behind them do to it.
__attribute__((target("sse4.2"))) uint32_t extend_by_instruction(uint32_t crc, const void* data,
                                                                 std::size_t num_bytes) {
  const auto* next = static_cast<const unsigned char*>(data);
  uint64_t remainder = static_cast<uint32_t>(~crc);
  for (; num_bytes >= 3 * kLaneBytes; num_bytes -= 3 * kLaneBytes, next += 3 * kLaneBytes) {
    uint64_t second = 0, third = 0;
    for (std::size_t i = 0; i < kLaneBytes; i += sizeof(uint64_t)) {
      remainder = _mm_crc32_u64(remainder, word_at(next + i));
      second = _mm_crc32_u64(second, word_at(next + kLaneBytes + i));
      third = _mm_crc32_u64(third, word_at(next + 2 * kLaneBytes + i));
    }
    const uint32_t two_lanes =
        apply(kZeroLane, static_cast<uint32_t>(remainder)) ^ static_cast<uint32_t>(second);
    remainder = apply(kZeroLane, two_lanes) ^ static_cast<uint32_t>(third);
  }
  for (; num_bytes >= sizeof(uint64_t); num_bytes -= sizeof(uint64_t), next += sizeof(uint64_t))
    remainder = _mm_crc32_u64(remainder, word_at(next));
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
