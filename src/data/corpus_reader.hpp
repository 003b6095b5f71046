// Documents out of files: one per line of JSON Lines, or plain text, one per file or per part of it. Long
// documents come in pieces, so that no file is too large for memory; parsing is left to the threads
// (data/piece_parser.hpp).
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace red::data {

struct CorpusOptions {
  enum class Format {
    by_name,  ///< .jsonl, .json and .ndjson are JSON Lines, all else is text; .gz and .zst behind it are
              ///< looked through
    jsonl,
    text,
  };
  /// Where a text file is cut into documents.
  enum class Split {
    file,         ///< nowhere
    blank_lines,  ///< at lines of white space alone, which belong to no document
    separator,    ///< at lines equal to `separator`, which belong to no document
  };
  std::vector<std::filesystem::path> inputs;
  Format format = Format::by_name;
  std::string field = "text";  ///< of each JSON object
  Split split = Split::file;
  std::string separator;
};

/// A line of JSON or a piece of text, as it lies in the file.
struct RawPiece {
  std::string bytes;
  std::string file;
  bool is_json = false;
  int64_t line = 0;           ///< JSON: counted from 1
  uint64_t offset = 0;        ///< text: byte of the (decompressed) file where the piece begins
  bool is_too_long = false;   ///< JSON: a line beyond kMaxLineBytes, left out
  bool ends_document = true;  ///< false: the next piece goes on with the document
};

/// Longest line of JSON that is read; longer ones count as bad.
constexpr std::size_t kMaxLineBytes = 32 << 20;
/// Longest piece of text.
constexpr std::size_t kMaxPieceBytes = 1 << 20;
/// Room behind a line that the JSON parser may read.
constexpr std::size_t kLinePadding = 64;

class CorpusReader {
 public:
  /// Throws ConfigError when there is no input, IoError for one that is not there.
  explicit CorpusReader(CorpusOptions options);
  ~CorpusReader();

  /// The next piece in order, or none at the end.
  std::optional<RawPiece> next();

  uint64_t num_file_bytes() const { return num_file_bytes_; }  ///< of all inputs, as they lie on disk
  uint64_t num_file_bytes_read() const;

 private:
  class File;
  CorpusOptions options_;
  std::size_t next_input_ = 0;
  uint64_t num_file_bytes_ = 0, num_bytes_done_ = 0;
  std::unique_ptr<File> file_;
};

}  // namespace red::data
