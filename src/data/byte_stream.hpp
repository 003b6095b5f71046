// A text file's bytes, whether plain, .gz or .zst, in order. Compressed files that end early or are damaged
// are errors, never a shorter text.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>

namespace red::data {

class ByteStream {
 public:
  /// Chooses by the file's ending. Throws IoError when it cannot be opened.
  explicit ByteStream(const std::filesystem::path& path);
  ~ByteStream();

  /// Fills `out` from the front; fewer bytes than asked for only at the end. Throws DataError naming the file
  /// when the compressed data is damaged or cut off.
  std::size_t read(std::span<char> out);
  /// Bytes of the file itself taken so far, for progress.
  uint64_t num_raw_bytes() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// The name without .gz or .zst.
std::filesystem::path without_compression(const std::filesystem::path& path);

}  // namespace red::data
