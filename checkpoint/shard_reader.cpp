#include "checkpoint/shard_reader.hpp"

#include <algorithm>
#include <cstring>

#include "base/crc32c.hpp"

namespace red::checkpoint {
namespace {

constexpr std::size_t kStagingBytes = std::size_t{8} << 20;
/// Short runs of long rows are read one by one; runs that fill at least one part in kSparse of their rows,
/// and rows within a page, which the disk reads whole anyway, go through the staging buffer, gaps included.
constexpr std::size_t kSparse = 4;
constexpr std::size_t kPageBytes = 4096;
/// Read at once where the bytes are then compared with a checksum.
constexpr std::size_t kComparedBytes = std::size_t{1} << 20;

uint32_t extend_crc32c_by_rows(uint32_t crc, const std::byte* data, std::size_t row_bytes, int64_t num_rows,
                               std::size_t stride) {
  if (stride == row_bytes) return extend_crc32c(crc, data, row_bytes * static_cast<std::size_t>(num_rows));
  for (int64_t row = 0; row < num_rows; ++row, data += stride) crc = extend_crc32c(crc, data, row_bytes);
  return crc;
}

}  // namespace

ShardReader::OpenShard& ShardReader::open(int index) {
  if (const auto found = by_index_.find(index); found != by_index_.end()) {
    open_.splice(open_.begin(), open_, found->second);
    return open_.front();
  }
  while (!open_.empty() && open_.size() >= most_open_files_) {
    by_index_.erase(open_.back().index);
    open_.pop_back();
  }
  const ShardFile& listed = manifest_.shard_files[static_cast<std::size_t>(index)];
  const std::string name = (folder_ / listed.name).string();
  OpenShard shard{index, PosixFile::open(name), h5::open_file(name), name, listed.num_bytes};
  const int64_t step = h5::read_int(shard.file.get(), "step", name);
  const uint64_t cursor = h5::read_uint(shard.file.get(), "sample_cursor", name);
  if (step != manifest_.metadata.step || cursor != manifest_.metadata.sample_cursor)
    throw DataError("'{}' belongs to another save: step {}, sample {}; the index says step {}, sample {}",
                    name, step, cursor, manifest_.metadata.step, manifest_.metadata.sample_cursor);
  open_.push_front(std::move(shard));
  by_index_[index] = open_.begin();
  return open_.front();
}

void ShardReader::close_all() {
  by_index_.clear();
  open_.clear();
}

Extent ShardReader::extent_of(const OpenShard& shard, const LogicalTensor& tensor, const Tile& tile) const {
  const Rectangle& region = tile.region;
  const std::string what = "'" + shard.name + "': '" + tile_name(tensor, region) + "'";
  const h5::Dataset dataset = h5::open_dataset(shard.file.get(), tile_name(tensor, region));
  const h5::Type type(RED_HDF5(DataError, H5Dget_type(dataset.get()), "{}", what));
  const std::vector<int64_t> shape = h5::shape_of(dataset.get(), what);
  const std::vector<int64_t> expected = tensor.cols == 0
                                            ? std::vector<int64_t>{region.num_rows}
                                            : std::vector<int64_t>{region.num_rows, region.num_cols};
  if (shape != expected || h5::dtype_of_file_type(type.get(), what) != tensor.dtype)
    throw DataError("{} has another shape or element type than the index says", what);
  const h5::PropertyList create(RED_HDF5(DataError, H5Dget_create_plist(dataset.get()), "{}", what));
  const haddr_t offset = H5Dget_offset(dataset.get());
  if (H5Pget_layout(create.get()) != H5D_CONTIGUOUS || H5Pget_external_count(create.get()) != 0 ||
      offset == HADDR_UNDEF)
    throw DataError("{} is not stored contiguously in this file", what);
  int64_t num_bytes = 0;
  uint64_t end = 0;
  if (!count_bytes(region.num_rows, region.num_cols, tensor.dtype, num_bytes) ||
      __builtin_add_overflow(offset, static_cast<uint64_t>(num_bytes), &end) || end > shard.num_bytes)
    throw DataError("{} lies beyond the end of its file", what);
  if (manifest_.has_checksums()) {
    const uint64_t own = h5::read_uint(dataset.get(), "crc32c", what);
    if (own != tile.crc32c)
      throw DataError("{} has the checksum {:08x} beside it, but the index says {:08x}", what, own,
                      tile.crc32c);
  }
  return {offset, static_cast<uint64_t>(num_bytes)};
}

void ShardReader::compare(const OpenShard& shard, const LogicalTensor& tensor, const Tile& tile,
                          uint32_t crc) {
  const std::string name = tile_name(tensor, tile.region);
  if (crc != tile.crc32c)
    throw DataError("'{}': '{}' is damaged: the CRC-32C of its bytes is {:08x}, the index says {:08x}",
                    shard.name, name, crc, tile.crc32c);
  verified_.insert(name);
}

Extent ShardReader::verify(const LogicalTensor& tensor, const Tile& tile) {
  const OpenShard& shard = open(tile.writer);
  const Extent extent = extent_of(shard, tensor, tile);
  if (manifest_.has_checksums()) compare(shard, tensor, tile, extent_crc32c(shard.bytes, extent));
  return extent;
}

void ShardReader::verify_structure(int writer, std::vector<Extent> tiles) {
  if (!manifest_.has_checksums()) return;
  const OpenShard& shard = open(writer);
  const uint32_t said = manifest_.shard_files[static_cast<std::size_t>(writer)].structure_crc32c;
  const uint32_t crc = structure_crc32c(shard.bytes, shard.num_bytes, std::move(tiles));
  if (crc != said)
    throw DataError("'{}' is damaged outside of its tiles: their CRC-32C is {:08x}, the index says {:08x}",
                    shard.name, crc, said);
}

void ShardReader::read_rows(const OpenShard& shard, uint64_t offset, std::size_t run_bytes,
                            std::size_t file_stride, int64_t num_rows, std::byte* data, std::size_t stride) {
  const bool dense = run_bytes == file_stride;
  if (num_rows == 1 || (dense && stride == run_bytes)) {
    shard.bytes.read_at(offset, data, run_bytes * static_cast<std::size_t>(num_rows));
    return;
  }
  const auto rows_at_once = static_cast<int64_t>(kStagingBytes / file_stride);
  if (rows_at_once < 2 || (run_bytes * kSparse < file_stride && file_stride > kPageBytes)) {
    for (int64_t row = 0; row < num_rows; ++row)
      shard.bytes.read_at(offset + static_cast<uint64_t>(row) * file_stride,
                          data + static_cast<std::size_t>(row) * stride, run_bytes);
    return;
  }
  staging_.resize(kStagingBytes);
  for (int64_t row = 0; row < num_rows; row += rows_at_once) {
    const auto count = static_cast<std::size_t>(std::min(rows_at_once, num_rows - row));
    shard.bytes.read_at(offset + static_cast<uint64_t>(row) * file_stride, staging_.data(),
                        (count - 1) * file_stride + run_bytes);
    for (std::size_t r = 0; r < count; ++r)
      std::memcpy(data + (static_cast<std::size_t>(row) + r) * stride, staging_.data() + r * file_stride,
                  run_bytes);
  }
}

void ShardReader::read(const LogicalTensor& tensor, const Tile& tile, const Rectangle& part,
                       const Destination& to) {
  const OpenShard& shard = open(tile.writer);
  const std::size_t element = size_of(tensor.dtype);
  const Extent extent = extent_of(shard, tensor, tile);
  const bool whole_tile = part == tile.region;
  const bool check = check_ == Check::checksums && manifest_.has_checksums() &&
                     !verified_.contains(tile_name(tensor, tile.region));
  if (check && !whole_tile) compare(shard, tensor, tile, extent_crc32c(shard.bytes, extent));
  // Inside the tile, whose bytes were just found to lie inside the file: no product below can overflow.
  const int64_t first = (part.row_begin - tile.region.row_begin) * tile.region.num_cols + part.col_begin -
                        tile.region.col_begin;
  const int64_t target = (part.row_begin - to.row_begin) * to.row_stride + part.col_begin - to.col_begin;
  std::byte* data = to.data + static_cast<std::size_t>(target) * element;
  const std::size_t row_bytes = static_cast<std::size_t>(part.num_cols) * element;
  const std::size_t stride = static_cast<std::size_t>(to.row_stride) * element;
  const std::size_t file_stride = static_cast<std::size_t>(tile.region.num_cols) * element;
  // Compared piece by piece, while it is in the processor's cache.
  const bool compares = check && whole_tile;
  const int64_t rows_at_once =
      compares ? std::max<int64_t>(1, static_cast<int64_t>(kComparedBytes / row_bytes)) : part.num_rows;
  uint32_t crc = 0;
  for (int64_t begin = 0; begin < part.num_rows; begin += rows_at_once) {
    const int64_t end = std::min(begin + rows_at_once, part.num_rows);
    const uint64_t offset =
        extent.offset + static_cast<uint64_t>(first) * element + static_cast<uint64_t>(begin) * file_stride;
    read_rows(shard, offset, row_bytes, file_stride, end - begin,
              data + static_cast<std::size_t>(begin) * stride, stride);
    if (compares)
      crc = extend_crc32c_by_rows(crc, data + static_cast<std::size_t>(begin) * stride, row_bytes,
                                  end - begin, stride);
  }
  if (compares) compare(shard, tensor, tile, crc);
}

}  // namespace red::checkpoint
