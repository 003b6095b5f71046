// A file that grows by whole records: a write that fails leaves nothing of its record, so a full disk costs
// records, never the form of the file, and writing goes on where there is room again.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string_view>

namespace red::train {

class RecordFile {
 public:
  enum class Open {
    append,  ///< the end of a file that may exist
    create   ///< a new file: fails where one of this name exists
  };

  /// Throws IoError.
  RecordFile(std::filesystem::path path, Open how);
  ~RecordFile();
  RecordFile(const RecordFile&) = delete;
  RecordFile& operator=(const RecordFile&) = delete;

  const std::filesystem::path& path() const { return path_; }
  /// All of it or nothing. Throws IoError with path and reason.
  void append(std::string_view record);

 private:
  std::filesystem::path path_;
  int descriptor_ = -1;
  int64_t end_ = 0;  ///< of the last whole record
};

}  // namespace red::train
