// The writing half of manifest.hpp. The file is built in memory, where HDF5 cannot fail for want of disk, and
// then written like any other.
#include <cmath>
#include <limits>

#include "base/crc32c.hpp"
#include "base/error.hpp"
#include "checkpoint/checksums.hpp"
#include "checkpoint/manifest.hpp"
#include "checkpoint/posix_file.hpp"

namespace red::checkpoint {
namespace {

constexpr std::size_t kGrowth = std::size_t{1} << 20;  ///< the image in memory grows by this

/// What a reader that skips our checks sees where a shard file is missing: NaN, or the lowest or highest
/// value of an integer, never a plausible zero.
void set_fill_value(hid_t create, DType dtype) {
  const float fp32 = std::numeric_limits<float>::quiet_NaN();
  const double fp64 = std::numeric_limits<double>::quiet_NaN();
  const int32_t int32 = std::numeric_limits<int32_t>::min();
  const uint8_t uint8 = std::numeric_limits<uint8_t>::max();
  const void* value = nullptr;
  hid_t type = H5I_INVALID_HID;
  switch (dtype) {
    case DType::fp32:
      value = &fp32, type = H5T_NATIVE_FLOAT;
      break;
    case DType::fp64:
      value = &fp64, type = H5T_NATIVE_DOUBLE;
      break;
    case DType::int32:
      value = &int32, type = H5T_NATIVE_INT32;
      break;
    case DType::uint8:
      value = &uint8, type = H5T_NATIVE_UINT8;
      break;
    case DType::bf16:
      throw LogicError("no checkpoint holds {}", name_of(dtype));
  }
  RED_HDF5(IoError, H5Pset_fill_value(create, type, value), "fill value");
}

h5::Space space_of(const LogicalTensor& tensor, const Rectangle& region) {
  const hsize_t extents[2] = {static_cast<hsize_t>(region.num_rows), static_cast<hsize_t>(region.num_cols)};
  return h5::Space(RED_HDF5(IoError, H5Screate_simple(tensor.cols == 0 ? 1 : 2, extents, nullptr),
                            "shape of '{}'", tensor.path));
}

void write_virtual_dataset(hid_t file, const TiledTensor& tiled, hid_t link) {
  const LogicalTensor& tensor = tiled.tensor;
  const h5::PropertyList create(RED_HDF5(IoError, H5Pcreate(H5P_DATASET_CREATE), "'{}'", tensor.path));
  RED_HDF5(IoError, H5Pset_obj_track_times(create.get(), false), "'{}'", tensor.path);
  set_fill_value(create.get(), tensor.dtype);
  const h5::Space space = space_of(tensor, whole(tensor));
  for (const Tile& tile : tiled.tiles) {
    const hsize_t start[2] = {static_cast<hsize_t>(tile.region.row_begin),
                              static_cast<hsize_t>(tile.region.col_begin)};
    const hsize_t block[2] = {static_cast<hsize_t>(tile.region.num_rows),
                              static_cast<hsize_t>(tile.region.num_cols)};
    const hsize_t count[2] = {1, 1};
    RED_HDF5(IoError, H5Sselect_hyperslab(space.get(), H5S_SELECT_SET, start, nullptr, count, block), "'{}'",
             tensor.path);
    const h5::Space source = space_of(tensor, tile.region);
    RED_HDF5(IoError,
             H5Pset_virtual(create.get(), space.get(), shard_file_name(tile.writer).c_str(),
                            tile_name(tensor, tile.region).c_str(), source.get()),
             "mapping of '{}'", tensor.path);
  }
  RED_HDF5(IoError, H5Sselect_all(space.get()), "'{}'", tensor.path);
  const h5::Dataset dataset(RED_HDF5(IoError,
                                     H5Dcreate2(file, tensor.path.c_str(), h5::file_type(tensor.dtype),
                                                space.get(), link, create.get(), H5P_DEFAULT),
                                     "creating '{}'", tensor.path));
}

void write_metadata(hid_t file, const Metadata& metadata) {
  h5::write_text(file, "format", "redllm checkpoint");
  h5::write_int(file, "format_major", kFormatMajor);
  h5::write_int(file, "format_minor", kFormatMinor);
  h5::write_int(file, "step", metadata.step);
  h5::write_uint(file, "sample_cursor", metadata.sample_cursor);
  h5::write_text(file, "configuration", metadata.configuration);
  h5::write_text(file, "layout", metadata.layout);
  h5::write_text(file, "tokenizer_digest", metadata.tokenizer_digest);
  if (metadata.validation_loss) h5::write_double(file, "validation_loss", *metadata.validation_loss);
  const h5::Group extra = h5::create_group(file, "extra");
  for (const auto& [name, value] : metadata.extra) h5::write_text(extra.get(), name, value);
}

void write_shard_files(hid_t file, std::span<const ShardFile> shard_files) {
  const h5::Group group = h5::create_group(file, "shard_files");
  std::vector<std::string> names;
  std::vector<uint64_t> sizes, structures;
  for (const ShardFile& shard : shard_files) {
    names.push_back(shard.name);
    sizes.push_back(shard.num_bytes);
    structures.push_back(shard.structure_crc32c);
  }
  h5::write_texts(group.get(), "name", names);
  h5::write_all(group.get(), "num_bytes", sizes);
  h5::write_all(group.get(), "structure_crc32c", structures);
}

/// Of every tensor a list, in the order of its mappings: attributes of the tensor would end at 64 KiB.
void write_tile_checksums(hid_t file, std::span<const TiledTensor> tensors) {
  for (const TiledTensor& tiled : tensors) {
    std::vector<uint64_t> checksums;
    checksums.reserve(tiled.tiles.size());
    for (const Tile& tile : tiled.tiles) checksums.push_back(tile.crc32c);
    h5::write_all(file, tile_checksums_path(tiled.tensor), checksums);
  }
}

void write_new_file(const std::filesystem::path& path, const void* data, std::size_t num_bytes) {
  PosixFile file = PosixFile::create(path);
  file.reserve(num_bytes);
  file.write_at(0, data, num_bytes);
  file.sync();
  file.close();
}

void write_checksum(const std::filesystem::path& folder, uint32_t crc) {
  const std::string text = fmt::format("{:08x}\n", crc);
  write_new_file(folder / kIndexChecksumName, text.data(), text.size());
}

std::vector<char> image_of(const h5::File& file) {
  RED_HDF5(IoError, H5Fflush(file.get(), H5F_SCOPE_GLOBAL), "index");
  const ssize_t num_bytes = RED_HDF5(IoError, H5Fget_file_image(file.get(), nullptr, 0), "index");
  std::vector<char> image(static_cast<std::size_t>(num_bytes));
  RED_HDF5(IoError, H5Fget_file_image(file.get(), image.data(), image.size()), "index");
  return image;
}

}  // namespace

void write_index(const std::filesystem::path& path, const Metadata& metadata,
                 std::span<const TiledTensor> tensors, std::span<const ShardFile> shard_files) {
  const h5::PropertyList access = h5::file_access();
  RED_HDF5(IoError, H5Pset_fapl_core(access.get(), kGrowth, false), "index");
  h5::File h5_file(RED_HDF5(IoError, H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, access.get()),
                            "cannot build the index in memory"));
  const h5::PropertyList link(RED_HDF5(IoError, H5Pcreate(H5P_LINK_CREATE), "index"));
  RED_HDF5(IoError, H5Pset_create_intermediate_group(link.get(), 1), "index");
  write_metadata(h5_file.get(), metadata);
  write_shard_files(h5_file.get(), shard_files);
  for (const TiledTensor& tensor : tensors) write_virtual_dataset(h5_file.get(), tensor, link.get());
  write_tile_checksums(h5_file.get(), tensors);
  const std::vector<char> image = image_of(h5_file);
  RED_HDF5(IoError, h5_file.close(), "index");

  write_new_file(path, image.data(), image.size());
  write_checksum(path.parent_path(), extend_crc32c(0, image.data(), image.size()));
}

void write_index_checksum(const std::filesystem::path& folder) {
  write_checksum(folder, file_crc32c(PosixFile::open(folder / kIndexName)));
}

}  // namespace red::checkpoint
