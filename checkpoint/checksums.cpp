#include "checkpoint/checksums.hpp"

#include <algorithm>

#include "base/crc32c.hpp"

namespace red::checkpoint {
namespace {

constexpr std::size_t kPieceBytes = std::size_t{1} << 20;  ///< small enough to stay in the processor's cache

}  // namespace

uint32_t extent_crc32c(const PosixFile& file, const Extent& extent, uint32_t crc) {
  std::vector<std::byte> piece(static_cast<std::size_t>(std::min<uint64_t>(kPieceBytes, extent.num_bytes)));
  for (uint64_t begin = 0; begin < extent.num_bytes; begin += piece.size()) {
    const auto count = static_cast<std::size_t>(std::min<uint64_t>(piece.size(), extent.num_bytes - begin));
    file.read_at(extent.offset + begin, piece.data(), count);
    crc = extend_crc32c(crc, piece.data(), count);
  }
  return crc;
}

uint32_t file_crc32c(const PosixFile& file) {
  return extent_crc32c(file, {0, file.num_bytes()});
}

uint32_t structure_crc32c(const PosixFile& file, uint64_t num_bytes, std::vector<Extent> extents) {
  std::sort(extents.begin(), extents.end(),
            [](const Extent& a, const Extent& b) { return a.offset < b.offset; });
  extents.push_back({num_bytes, 0});
  uint32_t crc = 0;
  uint64_t next = 0;
  for (const Extent& extent : extents) {
    if (extent.offset > next) crc = extent_crc32c(file, {next, extent.offset - next}, crc);
    next = std::max(next, extent.offset + extent.num_bytes);
  }
  return crc;
}

}  // namespace red::checkpoint
