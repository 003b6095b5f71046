// The few system calls that carry bulk bytes and make them durable. Every failure is an IoError that names
// the file, what was tried, and errno.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include "checkpoint/read_ahead.hpp"

namespace red::checkpoint {

/// An open file of ours, and its path for messages.
class PosixFile {
 public:
  /// A new file; fails where one of this name exists.
  static PosixFile create(const std::filesystem::path& path);
  /// An existing one, for reading.
  static PosixFile open(const std::filesystem::path& path);
  /// The same; nothing where there is none of this name.
  static std::optional<PosixFile> open_if_there(const std::filesystem::path& path);

  PosixFile(PosixFile&& other) noexcept;
  PosixFile& operator=(PosixFile&& other) noexcept;
  ~PosixFile();

  const std::filesystem::path& path() const { return path_; }
  uint64_t num_bytes() const;
  int descriptor() const { return descriptor_; }

  /// Reserves disk space for the first num_bytes, so that a full disk is known before anything is written.
  /// Where the file system cannot reserve, this does nothing: writing will tell.
  void reserve(uint64_t num_bytes) const;
  /// All of it, whatever the kernel takes at a time.
  void write_at(uint64_t offset, const void* data, std::size_t num_bytes) const;
  /// Exactly num_bytes. Throws DataError when the file ends before.
  void read_at(uint64_t offset, void* data, std::size_t num_bytes) const;
  /// Asks the kernel to begin moving these bytes to the disk, so that sync() finds little left to wait for.
  /// Only a hint: sync() reports what goes wrong.
  void begin_sync(uint64_t offset, std::size_t num_bytes) const noexcept;
  /// Asks the kernel to read what is synced from the disk the next time, not from its cache. Only a hint.
  void forget_cached() const noexcept;
  /// To the disk, not only to the kernel.
  void sync() const;
  /// Network file systems report late errors here.
  void close();

 private:
  PosixFile(int descriptor, std::filesystem::path path) : descriptor_(descriptor), path_(std::move(path)) {}
  int descriptor_ = -1;
  std::filesystem::path path_;
  mutable ReadAhead ahead_;
};

/// What a path leads to.
enum class PathKind { nothing, file, folder, other };
/// Follows symbolic links. Permission and disks that fail are IoErrors: what cannot be looked at may well be
/// there.
PathKind kind_of(const std::filesystem::path& path);
/// Bytes of a file; nothing where no file is there.
std::optional<uint64_t> size_if_there(const std::filesystem::path& path);

/// Of a text file its first `most_bytes` bytes; nothing where it is not there.
std::optional<std::string> read_text_if_there(const std::filesystem::path& path, std::size_t most_bytes);

/// Makes the entries of a folder durable: new files, renames.
void sync_folder(const std::filesystem::path& folder);

/// rename(2): one instant, within one file system.
void rename_path(const std::filesystem::path& from, const std::filesystem::path& to);

/// A whole small file, durable, in place of whatever stood there: written aside and renamed.
void replace_file(const std::filesystem::path& path, std::string_view text);

}  // namespace red::checkpoint
