#include "checkpoint/verify.hpp"

#include <algorithm>
#include <map>

#include "checkpoint/manifest.hpp"
#include "checkpoint/posix_file.hpp"
#include "checkpoint/shard_reader.hpp"

namespace red::checkpoint {
namespace {

namespace fs = std::filesystem;

/// A tile of one shard file; the manifest owns the tensor.
struct FileTile {
  const LogicalTensor* tensor;
  Tile tile;
};

class Verification {
 public:
  Verification(const fs::path& folder, const Share& share)
      : folder_(folder),
        share_(share),
        index_(open_index(folder, manifest_)),
        shards_(folder_, manifest_, Check::checksums) {}

  std::vector<std::string> run() {
    const std::map<int, std::vector<FileTile>> by_file = tiles_by_file();
    for (int file = share_.index; file < static_cast<int>(manifest_.shard_files.size());
         file += share_.count) {
      const auto tiles = by_file.find(file);
      check_file(file, tiles == by_file.end() ? std::vector<FileTile>() : tiles->second);
    }
    return std::move(damage_);
  }

  /// Every share goes through all tiles in one order, and each tile goes to the share that has least so far.
  std::vector<std::string> run_tiles(const std::string& prefix) {
    const std::string index_name = (folder_ / kIndexName).string();
    std::vector<int64_t> num_bytes(static_cast<std::size_t>(share_.count));
    for (const LogicalTensor& tensor : manifest_.tensors) {
      if (!tensor.path.starts_with(prefix)) continue;
      note([&] {
        for (const Tile& tile : read_tiles(index_, index_name, manifest_, tensor).tiles) {
          const auto least = std::min_element(num_bytes.begin(), num_bytes.end());
          *least += tile.region.size() * static_cast<int64_t>(size_of(tensor.dtype));
          if (least - num_bytes.begin() == share_.index) note([&] { shards_.verify(tensor, tile); });
        }
      });
    }
    return std::move(damage_);
  }

 private:
  /// Calls `work`; what it finds damaged is noted. False: something was.
  template <class F>
  bool note(const F& work) {
    try {
      work();
      return true;
    } catch (const DataError& error) {
      damage_.emplace_back(error.what());
      return false;
    }
  }

  std::map<int, std::vector<FileTile>> tiles_by_file() {
    std::map<int, std::vector<FileTile>> by_file;
    const std::string index_name = (folder_ / kIndexName).string();
    for (const LogicalTensor& tensor : manifest_.tensors) {
      note([&] {
        for (const Tile& tile : read_tiles(index_, index_name, manifest_, tensor).tiles) {
          if (tile.writer % share_.count == share_.index) by_file[tile.writer].push_back({&tensor, tile});
        }
      });
    }
    return by_file;
  }

  void check_file(int file, const std::vector<FileTile>& tiles) {
    const ShardFile& listed = manifest_.shard_files[static_cast<std::size_t>(file)];
    const fs::path path = folder_ / listed.name;
    const bool right_size = note([&] {
      const auto found = size_if_there(path);
      if (!found) throw DataError("'{}' is missing", path.string());
      if (*found != listed.num_bytes)
        throw DataError("'{}' has {} bytes instead of {}", path.string(), *found, listed.num_bytes);
    });
    if (!right_size) return;
    std::vector<Extent> extents;
    bool all = true;
    for (const FileTile& tile : tiles)
      all = note([&] { extents.push_back(shards_.verify(*tile.tensor, tile.tile)); }) && all;
    if (all) note([&] { shards_.verify_structure(file, std::move(extents)); });
  }

  const fs::path folder_;
  const Share share_;
  Manifest manifest_;
  h5::File index_;
  ShardReader shards_;
  std::vector<std::string> damage_;
};

}  // namespace

std::vector<std::string> find_damage(const fs::path& checkpoint_dir, const Share& share) {
  try {
    return Verification(checked_folder(checkpoint_dir), share).run();
  } catch (const DataError& error) {
    return {error.what()};
  }
}

std::vector<std::string> find_damaged_tiles(const fs::path& checkpoint_dir, const std::string& prefix,
                                            const Share& share) {
  try {
    return Verification(checked_folder(checkpoint_dir), share).run_tiles(prefix);
  } catch (const DataError& error) {
    return {error.what()};
  }
}

}  // namespace red::checkpoint
