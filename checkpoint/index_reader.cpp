// The reading half of manifest.hpp. Nothing in a file is believed before it is checked: names, shapes, sizes.
#include <algorithm>
#include <limits>

#include "base/log.hpp"
#include "checkpoint/checksums.hpp"
#include "checkpoint/manifest.hpp"
#include "checkpoint/posix_file.hpp"

namespace red::checkpoint {
namespace {

/// Returns the minor version.
int64_t check_format(hid_t file, const std::string& where) {
  if (!h5::has_attribute(file, "format") || h5::read_text(file, "format", where) != "redllm checkpoint")
    throw DataError("'{}' is no index of a checkpoint: it has no attribute format = 'redllm checkpoint'",
                    where);
  const int64_t major = h5::read_int(file, "format_major", where);
  const int64_t minor = h5::read_int(file, "format_minor", where);
  if (major != kFormatMajor)
    throw DataError(
        "'{}' has checkpoint format {}.{}; this program reads {}.x: use the version that wrote it", where,
        major, minor, kFormatMajor);
  if (minor > kFormatMinor)
    log::warning("'{}' has checkpoint format {}.{}, newer than {}.{}: what it adds is ignored", where, major,
                 minor, kFormatMajor, kFormatMinor);
  return minor;
}

uint32_t checked_crc32c(uint64_t value, const std::string& what) {
  if (value > std::numeric_limits<uint32_t>::max()) throw DataError("{}: {} is no CRC-32C", what, value);
  return static_cast<uint32_t>(value);
}

Metadata read_metadata(hid_t file, const std::string& where) {
  Metadata metadata;
  metadata.step = h5::read_int(file, "step", where);
  metadata.sample_cursor = h5::read_uint(file, "sample_cursor", where);
  metadata.configuration = h5::read_text(file, "configuration", where);
  metadata.layout = h5::read_text(file, "layout", where);
  metadata.tokenizer_digest = h5::read_text(file, "tokenizer_digest", where);
  if (h5::has_attribute(file, "validation_loss"))
    metadata.validation_loss = h5::read_double(file, "validation_loss", where);
  if (!h5::contains(file, "extra")) throw DataError("'{}': group 'extra' is missing", where);
  const h5::Group extra(
      RED_HDF5(DataError, H5Gopen2(file, "extra", H5P_DEFAULT), "'{}': group 'extra'", where));
  for (const std::string& name : h5::attribute_names(extra.get(), where))
    metadata.extra[name] = h5::read_text(extra.get(), name, where);
  return metadata;
}

std::vector<ShardFile> read_shard_files(hid_t file, const std::string& where, bool with_checksums) {
  const std::vector<std::string> names = h5::read_texts(file, "shard_files/name");
  const std::vector<uint64_t> sizes = h5::read_all<uint64_t>(file, "shard_files/num_bytes");
  if (names.size() != sizes.size())
    throw DataError("'{}' lists {} shard files and {} sizes", where, names.size(), sizes.size());
  std::vector<uint64_t> structures(names.size(), 0);
  if (with_checksums) structures = h5::read_all<uint64_t>(file, "shard_files/structure_crc32c");
  if (structures.size() != names.size())
    throw DataError("'{}' lists {} shard files and {} checksums", where, names.size(), structures.size());
  std::vector<ShardFile> shard_files;
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (!is_plain_path(names[i]) || names[i].find('/') != std::string::npos)
      throw DataError("'{}' lists a shard file '{}': only plain names beside the index are allowed", where,
                      names[i]);
    shard_files.push_back({names[i], sizes[i], checked_crc32c(structures[i], "'" + where + "'")});
  }
  return shard_files;
}

LogicalTensor read_tensor(hid_t dataset, const std::string& path, const std::string& where) {
  const std::string what = "'" + where + "': tensor '" + path + "'";
  const std::vector<int64_t> shape = h5::shape_of(dataset, what);
  const h5::Type type(RED_HDF5(DataError, H5Dget_type(dataset), "{}", what));
  LogicalTensor tensor{path, 0, 0, h5::dtype_of_file_type(type.get(), what)};
  int64_t num_bytes = 0;
  if (shape.empty() || shape.size() > 2 ||
      std::any_of(shape.begin(), shape.end(), [](int64_t n) { return n <= 0; }))
    throw DataError("{} is neither a vector nor a matrix", what);
  tensor.rows = shape[0];
  if (shape.size() == 2) tensor.cols = shape[1];
  if (!count_bytes(tensor.rows, whole(tensor).num_cols, tensor.dtype, num_bytes))
    throw DataError("{}: shape {} cannot be", what, shape_text(tensor));
  return tensor;
}

/// Every dataset below a group; names of ours have no depth beyond what a path says.
void collect_tensors(hid_t file, const std::string& group, const std::string& where,
                     std::vector<LogicalTensor>& tensors) {
  if (std::count(group.begin(), group.end(), '/') > 8)
    throw DataError("'{}': groups in '{}' are too deep", where, group);
  for (const std::string& name : h5::member_names(file, group)) {
    const std::string path = group + "/" + name;
    if (!is_plain_path(path)) throw DataError("'{}': '{}' cannot be the name of a tensor", where, path);
    H5O_info_t info{};
    RED_HDF5(DataError, H5Oget_info_by_name2(file, path.c_str(), &info, H5O_INFO_BASIC, H5P_DEFAULT),
             "'{}': '{}'", where, path);
    if (info.type == H5O_TYPE_GROUP) {
      collect_tensors(file, path, where, tensors);
    } else {
      tensors.push_back(read_tensor(h5::open_dataset(file, path).get(), path, where));
    }
  }
}

/// Name stored with mapping `i`; `get` is H5Pget_virtual_filename or H5Pget_virtual_dsetname.
template <class F>
std::string mapping_name(hid_t create, std::size_t i, const F& get, const std::string& what) {
  const ssize_t length = RED_HDF5(DataError, get(create, i, nullptr, 0), "{}: mapping {}", what, i);
  std::string name(static_cast<std::size_t>(length), '\0');
  RED_HDF5(DataError, get(create, i, name.data(), name.size() + 1), "{}: mapping {}", what, i);
  return name;
}

Rectangle mapped_region(hid_t create, std::size_t i, const LogicalTensor& tensor, const std::string& what) {
  const h5::Space space(RED_HDF5(DataError, H5Pget_virtual_vspace(create, i), "{}: mapping {}", what, i));
  const int rank = tensor.cols == 0 ? 1 : 2;
  hsize_t first[2] = {0, 0}, last[2] = {0, 0};
  if (H5Sget_simple_extent_ndims(space.get()) != rank || H5Sget_select_bounds(space.get(), first, last) < 0)
    throw DataError("{}: mapping {} is no rectangle of it", what, i);
  Rectangle region{static_cast<int64_t>(first[0]), static_cast<int64_t>(last[0] - first[0] + 1), 0, 1};
  if (rank == 2) {
    region.col_begin = static_cast<int64_t>(first[1]);
    region.num_cols = static_cast<int64_t>(last[1] - first[1] + 1);
  }
  const bool inside = first[0] <= last[0] && last[0] < static_cast<hsize_t>(tensor.rows) &&
                      first[1] <= last[1] && last[1] < static_cast<hsize_t>(whole(tensor).num_cols);
  if (!inside || H5Sget_select_npoints(space.get()) != static_cast<hssize_t>(region.size()))
    throw DataError("{}: mapping {} is no rectangle inside it", what, i);
  return region;
}

/// One for each tile.
void read_tile_checksums(const h5::File& index, const std::string& what, TiledTensor& tiled) {
  const std::vector<uint64_t> checksums =
      h5::read_all<uint64_t>(index.get(), tile_checksums_path(tiled.tensor));
  if (checksums.size() != tiled.tiles.size())
    throw DataError("{} has {} tiles and {} checksums", what, tiled.tiles.size(), checksums.size());
  for (std::size_t i = 0; i < checksums.size(); ++i)
    tiled.tiles[i].crc32c = checked_crc32c(checksums[i], what);
}

}  // namespace

std::string tile_checksums_path(const LogicalTensor& tensor) {
  return "shard_files/crc32c/" + tensor.path;
}

void check_index_checksum(const std::filesystem::path& folder) {
  constexpr std::size_t most_bytes = 64;  // more than a checksum and a line feed
  const auto text = read_text_if_there(folder / kIndexChecksumName, most_bytes);
  if (!text) return;
  const std::string said = text->substr(0, text->find('\n'));
  const uint32_t crc = file_crc32c(PosixFile::open(folder / kIndexName));
  if (said != fmt::format("{:08x}", crc))
    throw DataError("'{}' is damaged: the CRC-32C of its bytes is {:08x}, {} says '{}'",
                    (folder / kIndexName).string(), crc, kIndexChecksumName, said);
}

h5::File open_index(const std::filesystem::path& folder, Manifest& manifest) {
  check_index_checksum(folder);
  const std::string name = (folder / kIndexName).string();
  h5::File index = h5::open_file(name);
  manifest = read_manifest(index, name);
  if (manifest.has_checksums() && kind_of(folder / kIndexChecksumName) == PathKind::nothing)
    throw DataError("checkpoint '{}' is damaged: {}, the checksum of {}, is missing", folder.string(),
                    kIndexChecksumName, kIndexName);
  return index;
}

Metadata read_metadata(const std::filesystem::path& folder) {
  check_index_checksum(checked_folder(folder));
  const std::string name = (folder / kIndexName).string();
  const h5::File index = h5::open_file(name);
  check_format(index.get(), name);
  return read_metadata(index.get(), name);
}

Manifest read_manifest(const h5::File& index, const std::string& index_name) {
  Manifest manifest;
  manifest.format_minor = check_format(index.get(), index_name);
  manifest.metadata = read_metadata(index.get(), index_name);
  manifest.shard_files = read_shard_files(index.get(), index_name, manifest.has_checksums());
  for (const std::string& name : h5::member_names(index.get(), "/")) {
    if (name == "extra" || name == "shard_files") continue;
    collect_tensors(index.get(), name, index_name, manifest.tensors);
  }
  return manifest;
}

TiledTensor read_tiles(const h5::File& index, const std::string& index_name, const Manifest& manifest,
                       const LogicalTensor& tensor) {
  const std::string what = "'" + index_name + "': tensor '" + tensor.path + "'";
  const h5::Dataset dataset = h5::open_dataset(index.get(), tensor.path);
  const h5::PropertyList create(RED_HDF5(DataError, H5Dget_create_plist(dataset.get()), "{}", what));
  if (H5Pget_layout(create.get()) != H5D_VIRTUAL) throw DataError("{} is no virtual dataset", what);
  std::size_t count = 0;
  RED_HDF5(DataError, H5Pget_virtual_count(create.get(), &count), "{}", what);
  TiledTensor tiled{tensor, {}};
  for (std::size_t i = 0; i < count; ++i) {
    const Rectangle region = mapped_region(create.get(), i, tensor, what);
    const std::string file_name = mapping_name(create.get(), i, H5Pget_virtual_filename, what);
    const auto& files = manifest.shard_files;
    const auto file = std::find_if(files.begin(), files.end(),
                                   [&](const ShardFile& shard) { return shard.name == file_name; });
    if (file == files.end())
      throw DataError("{} lies in '{}', which is not among the shard files", what, file_name);
    const std::string name = mapping_name(create.get(), i, H5Pget_virtual_dsetname, what);
    if (name != tile_name(tensor, region))
      throw DataError("{}: mapping {} names '{}', not '{}'", what, i, name, tile_name(tensor, region));
    tiled.tiles.push_back({region, static_cast<int>(file - files.begin())});
  }
  if (manifest.has_checksums()) read_tile_checksums(index, what, tiled);
  if (const auto fault = find_tiling_fault(whole(tensor), tiled.tiles))
    throw DataError("{} {}: {}", what, shape_text(tensor), to_string(*fault, tensor.cols == 0));
  return tiled;
}

}  // namespace red::checkpoint
