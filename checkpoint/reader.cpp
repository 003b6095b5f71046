#include <algorithm>
#include <optional>
#include <unordered_map>

#include "checkpoint/checkpoint.hpp"
#include "checkpoint/manifest.hpp"
#include "checkpoint/posix_file.hpp"
#include "checkpoint/shard_reader.hpp"

namespace red::checkpoint {
namespace {

namespace fs = std::filesystem;

/// Every listed file is there with its size; names all that are not, or the first few.
void check_shard_files(const fs::path& folder, const std::vector<ShardFile>& shard_files) {
  constexpr int max_named = 5;
  int num_wrong = 0;
  std::string wrong;
  for (const ShardFile& shard : shard_files) {
    const auto found = size_if_there(folder / shard.name);
    if (found == shard.num_bytes) continue;
    if (++num_wrong > max_named) continue;
    wrong += found ? fmt::format("\n  {}: {} bytes instead of {}", shard.name, *found, shard.num_bytes)
                   : fmt::format("\n  {} is missing", shard.name);
  }
  if (num_wrong > max_named) wrong += fmt::format("\n  and {} more", num_wrong - max_named);
  if (num_wrong > 0)
    throw DataError("checkpoint '{}' is damaged: {} of {} shard files are missing or have another size:{}",
                    folder.string(), num_wrong, shard_files.size(), wrong);
}

}  // namespace

fs::path checked_folder(const fs::path& folder) {
  if (kind_of(folder) != PathKind::folder)
    throw DataError("'{}': no such checkpoint folder", folder.string());
  const fs::path name = folder.filename().empty() ? folder.parent_path().filename() : folder.filename();
  if (name.extension() == ".partial")
    throw DataError("'{}' is a save that was never finished: use another checkpoint", folder.string());
  if (kind_of(folder / kIndexName) != PathKind::file)
    throw DataError("'{}' is no checkpoint: it has no {}", folder.string(), kIndexName);
  return folder;
}

struct Reader::Impl {
  fs::path folder;
  std::string index_name;
  Manifest manifest;  ///< before the index, which fills it
  bool keeps_files_open;
  std::optional<h5::File> index;
  std::unordered_map<std::string, std::size_t> by_path;  ///< into manifest.tensors
  std::unordered_map<std::string, TiledTensor> tiled;    ///< those that were read from
  ShardReader shards;

  Impl(const fs::path& checkpoint_dir, Check check, std::size_t most_open_shards)
      : folder(checked_folder(checkpoint_dir)),
        index_name((folder / kIndexName).string()),
        keeps_files_open(most_open_shards > 0),
        index(open_index(folder, manifest)),
        shards(folder, manifest, check, most_open_shards) {
    check_shard_files(folder, manifest.shard_files);
    if (!keeps_files_open) index.reset();
    for (std::size_t i = 0; i < manifest.tensors.size(); ++i) by_path[manifest.tensors[i].path] = i;
  }

  const TiledTensor& tiles_of(const LogicalTensor& tensor) {
    const auto found = tiled.find(tensor.path);
    if (found != tiled.end()) return found->second;
    if (!index) index = h5::open_file(index_name);
    const auto added = tiled.emplace(tensor.path, read_tiles(*index, index_name, manifest, tensor)).first;
    if (!keeps_files_open) index.reset();
    return added->second;
  }

  void read(const Shard& region) {
    check_shard(region);
    const LogicalTensor& wanted = region.tensor;
    const auto found = by_path.find(wanted.path);
    if (found == by_path.end())
      throw DataError("checkpoint '{}' has no tensor '{}'", folder.string(), wanted.path);
    const LogicalTensor& stored = manifest.tensors[found->second];
    if (stored.rows != wanted.rows || stored.cols != wanted.cols || stored.dtype != wanted.dtype)
      throw DataError("checkpoint '{}': tensor '{}' is {}, but {} is wanted: is it of another model?",
                      folder.string(), wanted.path, shape_text(stored), shape_text(wanted));
    const Rectangle whole_region = region_of(region);
    const Destination to{static_cast<std::byte*>(region.data), region.row_begin, region.col_begin,
                         region.row_stride};
    for (const Tile& tile : tiles_of(stored).tiles) {
      const Rectangle part = intersection(whole_region, tile.region);
      if (!part.empty()) shards.read(stored, tile, part, to);
    }
    if (!keeps_files_open) shards.close_all();
  }
};

Reader::Reader(const fs::path& checkpoint_dir, Check check, std::size_t most_open_shards)
    : impl_(std::make_unique<Impl>(checkpoint_dir, check, most_open_shards)) {}
Reader::~Reader() = default;
Reader::Reader(Reader&&) noexcept = default;
Reader& Reader::operator=(Reader&&) noexcept = default;

const Metadata& Reader::metadata() const {
  return impl_->manifest.metadata;
}
const std::vector<LogicalTensor>& Reader::tensors() const {
  return impl_->manifest.tensors;
}
const std::vector<ShardFile>& Reader::shard_files() const {
  return impl_->manifest.shard_files;
}
bool Reader::contains(const std::string& path) const {
  return impl_->by_path.count(path) != 0;
}
bool Reader::has_checksums() const {
  return impl_->manifest.has_checksums();
}
void Reader::read(const Shard& region) const {
  impl_->read(region);
}

}  // namespace red::checkpoint
