#include "checkpoint/shard_writer.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <vector>

#include "checkpoint/h5.hpp"
#include "checkpoint/posix_file.hpp"
#include "checkpoint/shard_layout.hpp"

namespace red::checkpoint {
namespace {

static_assert(std::endian::native == std::endian::little, "tensors are stored as they lie in memory");

constexpr std::size_t kChunkBytes = std::size_t{8} << 20;  ///< bytes of one write, and of the staging buffer
constexpr hsize_t kAlignment = 4096;                       ///< of large datasets, in bytes

/// A dataset and where its bytes go.
struct Extent {
  const Shard* shard;
  uint64_t offset;
  uint64_t num_bytes;
};

h5::PropertyList early_contiguous() {
  h5::PropertyList create(RED_HDF5(IoError, H5Pcreate(H5P_DATASET_CREATE), "dataset properties"));
  RED_HDF5(IoError, H5Pset_layout(create.get(), H5D_CONTIGUOUS), "dataset properties");
  RED_HDF5(IoError, H5Pset_alloc_time(create.get(), H5D_ALLOC_TIME_EARLY), "dataset properties");
  RED_HDF5(IoError, H5Pset_fill_time(create.get(), H5D_FILL_TIME_NEVER), "dataset properties");
  RED_HDF5(IoError, H5Pset_obj_track_times(create.get(), false), "dataset properties");
  return create;
}

Extent create_dataset(hid_t file, const Shard& shard, hid_t create, hid_t link) {
  const std::string name = tile_name(shard.tensor, region_of(shard));
  const hsize_t extents[2] = {static_cast<hsize_t>(shard.num_rows), static_cast<hsize_t>(shard.num_cols)};
  const int rank = shard.tensor.cols == 0 ? 1 : 2;
  const h5::Space space(RED_HDF5(IoError, H5Screate_simple(rank, extents, nullptr), "shape of '{}'", name));
  const h5::Dataset dataset(RED_HDF5(IoError,
                                     H5Dcreate2(file, name.c_str(), h5::file_type(shard.tensor.dtype),
                                                space.get(), link, create, H5P_DEFAULT),
                                     "creating '{}'", name));
  const haddr_t offset = H5Dget_offset(dataset.get());
  if (offset == HADDR_UNDEF)
    throw IoError("'{}' was given no place in its file: {}", name, h5::take_error_stack());
  return {&shard, offset, static_cast<uint64_t>(region_of(shard).size()) * size_of(shard.tensor.dtype)};
}

/// Everything but the bulk bytes. `file` is the same file, opened by us: its space is reserved before HDF5
/// writes anything into it.
std::vector<Extent> create_structure(const PosixFile& file, const ShardIdentity& identity,
                                     std::span<const Shard> shards) {
  const std::string path = file.path().string();
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
  std::vector<Extent> extents;
  for (const Shard& shard : shards) {
    if (!region_of(shard).empty())
      extents.push_back(create_dataset(h5_file.get(), shard, create.get(), link.get()));
  }
  hsize_t num_bytes = 0;
  RED_HDF5(IoError, H5Fget_filesize(h5_file.get(), &num_bytes), "{}", path);
  file.reserve(num_bytes);
  RED_HDF5(IoError, H5Fflush(h5_file.get(), H5F_SCOPE_GLOBAL), "cannot write the structure of '{}'", path);
  RED_HDF5(IoError, h5_file.close(), "cannot close '{}'", path);
  return extents;
}

/// HDF5 may close a file that it could not write: looks whether everything is there and where it was
/// promised.
void check_structure(const PosixFile& file, const std::vector<Extent>& extents) {
  const std::string path = file.path().string();
  const uint64_t num_bytes = file.num_bytes();
  const h5::File opened = h5::open_file(file.path());
  for (const Extent& extent : extents) {
    const std::string name = tile_name(extent.shard->tensor, region_of(*extent.shard));
    const h5::Dataset dataset = h5::open_dataset(opened.get(), name);
    if (H5Dget_offset(dataset.get()) != extent.offset || extent.offset + extent.num_bytes > num_bytes)
      throw IoError("'{}' was not written as HDF5 said: '{}' lies elsewhere or beyond the end", path, name);
  }
}

/// Where bulk bytes go in, a chunk at a time.
struct BulkWriter {
  const PosixFile& file;
  const std::function<void()>& between_chunks;
  std::vector<std::byte> staging;

  void write(uint64_t offset, const std::byte* data, std::size_t num_bytes) const {
    for (std::size_t begin = 0; begin < num_bytes; begin += kChunkBytes) {
      const std::size_t count = std::min(kChunkBytes, num_bytes - begin);
      file.write_at(offset + begin, data + begin, count);
      file.begin_sync(offset + begin, count);
      between_chunks();
    }
  }
};

/// Rows one after another; contiguous ones straight from the tensor's memory, others through the staging
/// buffer.
void write_bytes(BulkWriter& out, const Extent& extent) {
  const Shard& shard = *extent.shard;
  const std::size_t element = size_of(shard.tensor.dtype);
  const std::size_t row_bytes = static_cast<std::size_t>(shard.num_cols) * element;
  const std::size_t stride_bytes = static_cast<std::size_t>(shard.row_stride) * element;
  const auto* source = static_cast<const std::byte*>(shard.data);
  if (shard.num_rows == 1 || stride_bytes == row_bytes) {
    out.write(extent.offset, source, extent.num_bytes);
    return;
  }
  if (row_bytes > kChunkBytes) {
    for (int64_t row = 0; row < shard.num_rows; ++row)
      out.write(extent.offset + static_cast<uint64_t>(row) * row_bytes,
                source + static_cast<std::size_t>(row) * stride_bytes, row_bytes);
    return;
  }
  out.staging.resize(kChunkBytes);
  const auto rows_at_once = static_cast<int64_t>(kChunkBytes / row_bytes);
  for (int64_t row = 0; row < shard.num_rows; row += rows_at_once) {
    const auto count = static_cast<std::size_t>(std::min(rows_at_once, shard.num_rows - row));
    for (std::size_t r = 0; r < count; ++r)
      std::memcpy(out.staging.data() + r * row_bytes,
                  source + (static_cast<std::size_t>(row) + r) * stride_bytes, row_bytes);
    out.write(extent.offset + static_cast<uint64_t>(row) * row_bytes, out.staging.data(), count * row_bytes);
  }
}

}  // namespace

uint64_t write_shard_file(const std::filesystem::path& path, const ShardIdentity& identity,
                          std::span<const Shard> shards, const std::function<void()>& between_chunks) {
  PosixFile file = PosixFile::create(path);
  const std::vector<Extent> extents = create_structure(file, identity, shards);
  check_structure(file, extents);
  BulkWriter out{file, between_chunks, {}};
  for (const Extent& extent : extents) write_bytes(out, extent);
  file.sync();
  const uint64_t num_bytes = file.num_bytes();
  file.close();
  return num_bytes;
}

}  // namespace red::checkpoint
