// Checkpoints on disk (docs/checkpoint-format.md):
//   RUN/checkpoints/step-00001000/
//     index.h5            every tensor whole, as a virtual dataset over the shards; metadata; list of shard
//     files shard-00000.h5      one per writer, written serially by its own process
//   RUN/checkpoints/latest   a text file: the folder's name
// A save is written aside (step-00001000.partial), synced to disk, agreed on by all ranks, renamed, then
// `latest` is moved: whoever sees the final name sees a whole checkpoint.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "checkpoint/shard.hpp"
#include "parallel/communicator.hpp"

namespace red::checkpoint {

inline constexpr int kFormatMajor = 1;
inline constexpr int kFormatMinor = 0;

/// Everything besides tensors that a resume needs. Written to index.h5 as attributes.
struct Metadata {
  int64_t step = 0;                          ///< optimizer steps done
  uint64_t sample_cursor = 0;                ///< samples consumed: index of the next one
  std::string configuration;                 ///< effective configuration, INI
  std::string layout;                        ///< that wrote it, for people
  std::string tokenizer_digest;              ///< hex, empty: none
  std::map<std::string, std::string> extra;  ///< further state by name (text)
};

/// Collective over `world`: writes one checkpoint and publishes it. On failure of any rank every rank throws
/// the same IoError (rank, path, errno); the previous checkpoint and `latest` are untouched.
void save(const std::filesystem::path& checkpoints_dir, const Metadata& metadata,
          std::span<const Shard> local_shards, parallel::Communicator& world);

/// The folder that `latest` names; nothing if there is none. Throws DataError when it names one that is not
/// there.
std::optional<std::filesystem::path> find_latest(const std::filesystem::path& checkpoints_dir);

struct ShardFile {
  std::string name;
  uint64_t num_bytes = 0;
};

/// Reads by logical name and region, from the shard files themselves; at most 64 are open at a time.
class Reader {
 public:
  /// Throws DataError when the folder is no whole checkpoint of a known format version: what is missing or
  /// wrong.
  explicit Reader(const std::filesystem::path& checkpoint_dir);
  ~Reader();
  Reader(Reader&&) noexcept;
  Reader& operator=(Reader&&) noexcept;

  const Metadata& metadata() const;
  const std::vector<LogicalTensor>& tensors() const;
  const std::vector<ShardFile>& shard_files() const;
  bool contains(const std::string& path) const;

  /// Fills the shard's memory. Throws DataError when the tensor is missing, has another shape or dtype, or
  /// when its region is not wholly covered by shards.
  void read(const Shard& region) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace red::checkpoint
