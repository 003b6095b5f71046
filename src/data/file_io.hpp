// Files as this folder needs them: reads at an offset that either give all bytes or throw, a read-only
// mapping, and a writer whose file appears under its name only when it is whole.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace red::data {

/// An open file, read by offset; safe to share between threads.
class InputFile {
 public:
  explicit InputFile(std::filesystem::path path);  ///< throws IoError with path and reason
  ~InputFile();
  InputFile(InputFile&& other) noexcept;
  InputFile& operator=(InputFile&& other) noexcept;

  const std::filesystem::path& path() const { return path_; }
  uint64_t num_bytes() const { return num_bytes_; }  ///< when it was opened
  /// Fills `out` from byte `offset` on. Throws IoError on a failed read, DataError when the file ends early.
  void read_at(uint64_t offset, std::span<std::byte> out) const;

 private:
  friend class MappedFile;
  std::filesystem::path path_;
  int fd_ = -1;
  uint64_t num_bytes_ = 0;
};

/// All bytes of a small file. Throws as InputFile does.
std::string read_whole(const std::filesystem::path& path);

/// A whole file mapped read-only. An empty file has an empty span.
class MappedFile {
 public:
  explicit MappedFile(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;

  std::span<const std::byte> bytes() const { return bytes_; }
  /// Gives the pages back to the system; the next access maps them again. Keeps resident memory bounded while
  /// a long file is walked over.
  void drop_pages() const;

 private:
  std::span<const std::byte> bytes_;
};

/// Writes PATH.partial through a buffer; publish() makes it durable and renames it to PATH. A writer that
/// dies before that takes its partial file along.
class OutputFile {
 public:
  explicit OutputFile(std::filesystem::path path);
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  void append(std::span<const std::byte> bytes);
  void append(std::string_view text) { append(std::as_bytes(std::span(text))); }
  /// Overwrites bytes already appended.
  void write_at(uint64_t offset, std::span<const std::byte> bytes);
  void read_at(uint64_t offset, std::span<std::byte> out);  ///< bytes already appended
  uint64_t num_bytes() const { return flushed_ + buffer_.size(); }
  void sync();     ///< all bytes on disk, still under the partial name
  void publish();  ///< sync(), then the final name, then the folder is synced

 private:
  void flush();
  void write_fully(uint64_t offset, std::span<const std::byte> bytes);

  std::filesystem::path path_, partial_;
  int fd_ = -1;
  bool published_ = false;
  uint64_t flushed_ = 0;
  std::vector<std::byte> buffer_;
};

/// Bytes on which little-endian integers lie unaligned.
template <class T>
T load(const std::byte* from) {
  T value;
  __builtin_memcpy(&value, from, sizeof(T));
  return value;
}

}  // namespace red::data
