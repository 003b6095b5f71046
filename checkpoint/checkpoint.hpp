// Checkpoints on disk (docs/checkpoint-format.md):
//   RUN/checkpoints/step-00001000/
//     index.h5            every tensor whole, as a virtual dataset over the shards; metadata; list of shard
//                         files; checksums of every tile
//     index.crc32c        a text file: the checksum of index.h5
//     shard-00000.h5      one per writer, written serially by its own process
//   RUN/checkpoints/latest   a text file: the folder's name
// A save is written aside (step-00001000.partial), synced to disk, agreed on by all ranks, renamed, then
// `latest` is moved: whoever sees the final name sees a whole checkpoint.
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "checkpoint/retention.hpp"
#include "checkpoint/shard.hpp"
#include "parallel/communicator.hpp"

namespace red::checkpoint {

inline constexpr int kFormatMajor = 1;
inline constexpr int kFormatMinor = 1;  ///< 1: checksums

/// Everything besides tensors that a resume needs. Written to index.h5 as attributes.
struct Metadata {
  int64_t step = 0;                          ///< optimizer steps done
  uint64_t sample_cursor = 0;                ///< samples consumed: index of the next one
  std::string configuration;                 ///< effective configuration, INI
  std::string layout;                        ///< that wrote it, for people
  std::string tokenizer_digest;              ///< hex, empty: none
  std::optional<double> validation_loss;     ///< mean over held-out sources after this step, if it was taken
  std::map<std::string, std::string> extra;  ///< further state by name (text)
};

struct SaveOptions {
  /// Copies bytes to host memory from where Shard::data points, before it returns; empty: that is host
  /// memory.
  std::function<void(void* host, const void* from, std::size_t num_bytes)> fetch = {};
  Retention retention;
};

/// Collective over `world`: writes one checkpoint and publishes it. On failure of any rank every rank throws
/// the same IoError (rank, path, errno); the previous checkpoint and `latest` are untouched, and what was
/// written of this one is removed. Once the final name is on the disk the save is done: where `latest` cannot
/// be moved then, a warning says so, and the retention deletes nothing.
void save(const std::filesystem::path& checkpoints_dir, const Metadata& metadata,
          std::span<const Shard> local_shards, parallel::Communicator& world,
          const SaveOptions& options = {});

/// The folder that `latest` names; nothing if there is none. Throws DataError when it names one that is not
/// there.
std::optional<std::filesystem::path> find_latest(const std::filesystem::path& checkpoints_dir);

/// Only the metadata of a checkpoint. Throws DataError, or IoError when it cannot be read.
Metadata read_metadata(const std::filesystem::path& checkpoint_dir);

struct ShardFile {
  std::string name;
  uint64_t num_bytes = 0;
  uint32_t structure_crc32c = 0;  ///< of all bytes outside of tiles, in their order; format 1.0: 0
};

/// Whether a reader compares each tile with its checksum before it gives out any of its elements (a tile of
/// which a part is asked for is then read whole, once), or trusts them, because somebody just did so.
enum class Check { checksums, nothing };

/// Reads by logical name and region, from the shard files themselves.
class Reader {
 public:
  static constexpr std::size_t kMostOpenShards = 32;  ///< by HDF5 and by us: 64 descriptors

  /// Throws DataError when the folder is no whole checkpoint of a known format version: what is missing or
  /// wrong; IoError when that cannot be read. At most `most_open_shards` shard files are open at a time, and
  /// the index; 0: between two reads no file at all, for who reads many checkpoints in turn.
  explicit Reader(const std::filesystem::path& checkpoint_dir, Check check = Check::checksums,
                  std::size_t most_open_shards = kMostOpenShards);
  ~Reader();
  Reader(Reader&&) noexcept;
  Reader& operator=(Reader&&) noexcept;

  const Metadata& metadata() const;
  const std::vector<LogicalTensor>& tensors() const;
  const std::vector<ShardFile>& shard_files() const;
  bool contains(const std::string& path) const;
  bool has_checksums() const;  ///< false: of format 1.0

  /// Fills the shard's memory, which is the host's. Throws DataError when the tensor is missing, has another
  /// shape or dtype, when its region is not wholly covered by shards, or when a tile is damaged.
  void read(const Shard& region) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace red::checkpoint
