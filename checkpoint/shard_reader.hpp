// Opens shard files on demand, keeps a bounded number open, and reads parts of tiles from them with our own
// system calls: HDF5 only says where a tile's bytes lie.
#pragma once

#include <cstdint>
#include <filesystem>
#include <list>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "checkpoint/checksums.hpp"
#include "checkpoint/h5.hpp"
#include "checkpoint/manifest.hpp"
#include "checkpoint/posix_file.hpp"
#include "checkpoint/shard_layout.hpp"

namespace red::checkpoint {

/// Memory that receives a region: element (row, col) of the tensor goes to
/// data[(row - row_begin) * row_stride + col - col_begin].
struct Destination {
  std::byte* data = nullptr;
  int64_t row_begin = 0, col_begin = 0;
  int64_t row_stride = 0;  ///< elements
};

class ShardReader {
 public:
  /// Both must outlive the reader. One file is open at least, from the first read on.
  ShardReader(const std::filesystem::path& folder, const Manifest& manifest, Check check,
              std::size_t most_open_files = Reader::kMostOpenShards)
      : folder_(folder), manifest_(manifest), check_(check), most_open_files_(most_open_files) {}

  /// Copies `part`, which lies in the tile, to memory. Throws DataError when the file or the dataset is not
  /// what the index says.
  void read(const LogicalTensor& tensor, const Tile& tile, const Rectangle& part, const Destination& to);

  /// Reads the tile's bytes and compares them with its checksum, where the format has some; returns where
  /// they lie. Throws as read().
  Extent verify(const LogicalTensor& tensor, const Tile& tile);
  /// Compares the bytes outside of the file's tiles, which lie in these extents, with their checksum. Throws
  /// DataError.
  void verify_structure(int writer, std::vector<Extent> tiles);

  void close_all();

 private:
  struct OpenShard {
    int index = 0;
    /// Not HDF5's descriptor: its short reads of headers would make the kernel forget that tiles are read one
    /// after another, and it would no longer read ahead.
    PosixFile bytes;
    h5::File file;
    std::string name;
    uint64_t num_bytes = 0;
  };
  OpenShard& open(int index);
  Extent extent_of(const OpenShard& shard, const LogicalTensor& tensor, const Tile& tile) const;
  void compare(const OpenShard& shard, const LogicalTensor& tensor, const Tile& tile, uint32_t crc);
  void read_rows(const OpenShard& shard, uint64_t offset, std::size_t run_bytes, std::size_t file_stride,
                 int64_t num_rows, std::byte* data, std::size_t stride);

  const std::filesystem::path& folder_;
  const Manifest& manifest_;
  const Check check_;
  const std::size_t most_open_files_;
  std::unordered_set<std::string> verified_;  ///< names of tiles
  std::list<OpenShard> open_;                 ///< most recently used first
  std::unordered_map<int, std::list<OpenShard>::iterator> by_index_;
  std::vector<std::byte> staging_;
};

}  // namespace red::checkpoint
