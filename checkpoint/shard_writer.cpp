#include "checkpoint/shard_writer.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <vector>

#include "base/crc32c.hpp"
#include "base/watch.hpp"
#include "checkpoint/checksums.hpp"
#include "checkpoint/h5.hpp"
#include "checkpoint/posix_file.hpp"
#include "checkpoint/shard_layout.hpp"

namespace red::checkpoint {
namespace {

static_assert(std::endian::native == std::endian::little, "tensors are stored as they lie in memory");

constexpr std::size_t kChunkBytes = std::size_t{8} << 20;  ///< bytes of one write, and of the staging buffer
constexpr hsize_t kAlignment = 4096;                       ///< of large datasets, in bytes

/// A dataset and where its bytes go.
struct PlacedTile {
  const Shard* shard;
  uint32_t crc32c;
  Extent extent;
};

/// The bytes of shards in row-major order without gaps, a chunk at a time.
class ChunkSource {
 public:
  ChunkSource(const WriteOptions& options, const std::function<void()>& between_chunks)
      : fetch_(options.fetch), between_chunks_(between_chunks) {}

  /// use(data, count), with at most kChunkBytes at a time.
  template <class Use>
  void read(const Shard& shard, const Use& use) {
    const std::size_t element = size_of(shard.tensor.dtype);
    const std::size_t row_bytes = static_cast<std::size_t>(shard.num_cols) * element;
    const std::size_t stride_bytes = static_cast<std::size_t>(shard.row_stride) * element;
    const auto num_rows = static_cast<std::size_t>(shard.num_rows);
    const auto* source = static_cast<const std::byte*>(shard.data);
    if (num_rows == 1 || stride_bytes == row_bytes) return read_run(source, num_rows * row_bytes, use);
    if (row_bytes > kChunkBytes) {
      for (std::size_t row = 0; row < num_rows; ++row) read_run(source + row * stride_bytes, row_bytes, use);
      return;
    }
    const std::size_t rows_at_once = kChunkBytes / row_bytes;
    for (std::size_t row = 0; row < num_rows; row += rows_at_once) {
      const std::size_t count = std::min(rows_at_once, num_rows - row);
      for (std::size_t r = 0; r < count; ++r)
        copy(staging() + r * row_bytes, source + (row + r) * stride_bytes, row_bytes);
      use(staging(), count * row_bytes);
      between_chunks_();
    }
  }

 private:
  template <class Use>
  void read_run(const std::byte* source, std::size_t num_bytes, const Use& use) {
    for (std::size_t begin = 0; begin < num_bytes; begin += kChunkBytes) {
      const std::size_t count = std::min(kChunkBytes, num_bytes - begin);
      if (fetch_) copy(staging(), source + begin, count);
      use(fetch_ ? staging() : source + begin, count);
      between_chunks_();
    }
  }
  void copy(std::byte* to, const std::byte* from, std::size_t num_bytes) const {
    if (fetch_) return fetch_(to, from, num_bytes);
    std::memcpy(to, from, num_bytes);
  }
  std::byte* staging() {
    staging_.resize(kChunkBytes);
    return staging_.data();
  }

  const std::function<void(void*, const void*, std::size_t)>& fetch_;
  const std::function<void()>& between_chunks_;
  std::vector<std::byte> staging_;
};

h5::PropertyList early_contiguous() {
  h5::PropertyList create(RED_HDF5(IoError, H5Pcreate(H5P_DATASET_CREATE), "dataset properties"));
  RED_HDF5(IoError, H5Pset_layout(create.get(), H5D_CONTIGUOUS), "dataset properties");
  RED_HDF5(IoError, H5Pset_alloc_time(create.get(), H5D_ALLOC_TIME_EARLY), "dataset properties");
  RED_HDF5(IoError, H5Pset_fill_time(create.get(), H5D_FILL_TIME_NEVER), "dataset properties");
  RED_HDF5(IoError, H5Pset_obj_track_times(create.get(), false), "dataset properties");
  return create;
}

PlacedTile create_dataset(hid_t file, const Shard& shard, uint32_t crc32c, hid_t create, hid_t link) {
  const std::string name = tile_name(shard.tensor, region_of(shard));
  const hsize_t extents[2] = {static_cast<hsize_t>(shard.num_rows), static_cast<hsize_t>(shard.num_cols)};
  const int rank = shard.tensor.cols == 0 ? 1 : 2;
  const h5::Space space(RED_HDF5(IoError, H5Screate_simple(rank, extents, nullptr), "shape of '{}'", name));
  const h5::Dataset dataset(RED_HDF5(IoError,
                                     H5Dcreate2(file, name.c_str(), h5::file_type(shard.tensor.dtype),
                                                space.get(), link, create, H5P_DEFAULT),
                                     "creating '{}'", name));
  h5::write_uint(dataset.get(), "crc32c", crc32c);
  const haddr_t offset = H5Dget_offset(dataset.get());
  if (offset == HADDR_UNDEF)
    throw IoError("'{}' was given no place in its file: {}", name, h5::take_error_stack());
  return {
      &shard, crc32c, {offset, static_cast<uint64_t>(region_of(shard).size()) * size_of(shard.tensor.dtype)}};
}

/// Everything but the bulk bytes. `file` is the same file, opened by us: its space is reserved before HDF5
/// writes anything into it.
std::vector<PlacedTile> create_structure(const PosixFile& file, const ShardIdentity& identity,
                                         std::span<const Shard> shards, ChunkSource& source) {
  const std::string path = file.path().string();
  const watch::BlockingPoint laying_out("laying out", path);
  const h5::PropertyList access = h5::file_access();
  RED_HDF5(IoError, H5Pset_alignment(access.get(), 16 * kAlignment, kAlignment), "{}", path);
  h5::File h5_file(RED_HDF5(IoError, H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, access.get()),
                            "cannot create '{}'", path));
  const h5::PropertyList create = early_contiguous();
  const h5::PropertyList link(RED_HDF5(IoError, H5Pcreate(H5P_LINK_CREATE), "{}", path));
  RED_HDF5(IoError, H5Pset_create_intermediate_group(link.get(), 1), "{}", path);
  h5::write_int(h5_file.get(), "step", identity.step);
  h5::write_uint(h5_file.get(), "sample_cursor", identity.sample_cursor);
  h5::write_int(h5_file.get(), "writer", identity.writer);
  h5::write_int(h5_file.get(), "num_writers", identity.num_writers);
  std::vector<PlacedTile> tiles;
  for (const Shard& shard : shards) {
    if (region_of(shard).empty()) continue;
    uint32_t crc = 0;
    source.read(shard,
                [&](const std::byte* data, std::size_t count) { crc = extend_crc32c(crc, data, count); });
    tiles.push_back(create_dataset(h5_file.get(), shard, crc, create.get(), link.get()));
  }
  hsize_t num_bytes = 0;
  RED_HDF5(IoError, H5Fget_filesize(h5_file.get(), &num_bytes), "{}", path);
  file.reserve(num_bytes);
  RED_HDF5(IoError, H5Fflush(h5_file.get(), H5F_SCOPE_GLOBAL), "cannot write the structure of '{}'", path);
  RED_HDF5(IoError, h5_file.close(), "cannot close '{}'", path);
  return tiles;
}

/// HDF5 may close a file that it could not write: looks whether everything is there and where it was
/// promised.
void check_structure(const PosixFile& file, const std::vector<PlacedTile>& tiles) {
  const std::string path = file.path().string();
  const uint64_t num_bytes = file.num_bytes();
  const h5::File opened = h5::open_file(file.path());
  for (const PlacedTile& tile : tiles) {
    const std::string name = tile_name(tile.shard->tensor, region_of(*tile.shard));
    const h5::Dataset dataset = h5::open_dataset(opened.get(), name);
    if (H5Dget_offset(dataset.get()) != tile.extent.offset ||
        tile.extent.offset + tile.extent.num_bytes > num_bytes)
      throw IoError("'{}' was not written as HDF5 said: '{}' lies elsewhere or beyond the end", path, name);
  }
}

void write_bytes(const PosixFile& file, const PlacedTile& tile, ChunkSource& source) {
  uint64_t next = tile.extent.offset;
  source.read(*tile.shard, [&](const std::byte* data, std::size_t count) {
    file.write_at(next, data, count);
    file.begin_sync(next, count);
    next += count;
  });
}

uint32_t structure_of(const PosixFile& file, const std::vector<PlacedTile>& tiles, uint64_t num_bytes) {
  std::vector<Extent> extents(tiles.size());
  std::transform(tiles.begin(), tiles.end(), extents.begin(),
                 [](const PlacedTile& tile) { return tile.extent; });
  return structure_crc32c(file, num_bytes, std::move(extents));
}

ShardRecord record_of(const PosixFile& file, const std::vector<PlacedTile>& tiles) {
  ShardRecord record;
  record.num_bytes = file.num_bytes();
  record.tile_crc32c.reserve(tiles.size());
  for (const PlacedTile& tile : tiles) record.tile_crc32c.push_back(tile.crc32c);
  record.structure_crc32c = structure_of(file, tiles, record.num_bytes);
  return record;
}

void expect_read(const std::string& path, const std::string& what, uint32_t expected, uint32_t crc) {
  if (crc != expected)
    throw IoError("'{}' does not hold what was written: the CRC-32C of {} is {:08x}, not {:08x}", path, what,
                  crc, expected);
}

void read_back(const PosixFile& file, const std::vector<PlacedTile>& tiles, const ShardRecord& record,
               const std::function<void()>& between_chunks) {
  file.forget_cached();
  const std::string path = file.path().string();
  for (const PlacedTile& tile : tiles) {
    expect_read(path, fmt::format("'{}'", tile_name(tile.shard->tensor, region_of(*tile.shard))), tile.crc32c,
                extent_crc32c(file, tile.extent));
    between_chunks();
  }
  expect_read(path, "what lies between its tiles", record.structure_crc32c,
              structure_of(file, tiles, record.num_bytes));
}

}  // namespace

ShardRecord write_shard_file(const std::filesystem::path& path, const ShardIdentity& identity,
                             std::span<const Shard> shards, const std::function<void()>& between_chunks,
                             const WriteOptions& options) {
  PosixFile file = PosixFile::create(path);
  ChunkSource source(options, between_chunks);
  const std::vector<PlacedTile> tiles = create_structure(file, identity, shards, source);
  check_structure(file, tiles);
  for (const PlacedTile& tile : tiles) write_bytes(file, tile, source);
  file.sync();
  ShardRecord record = record_of(file, tiles);
  if (options.read_back) read_back(file, tiles, record, between_chunks);
  file.close();
  return record;
}

}  // namespace red::checkpoint
