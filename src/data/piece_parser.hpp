// The text of a raw piece: JSON parsed whole and strictly, UTF-8 checked, everything wrong located.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

#include "data/corpus_reader.hpp"

namespace red::data {

/// A bad line: where, and what is wrong. Not an error by itself, the caller decides how many it takes.
struct BadLine {
  std::string place;  ///< FILE:LINE
  std::string reason;
};

struct TextPair {
  std::string_view inputs, targets;
};

/// One per thread; keeps its memory.
class PieceParser {
 public:
  /// `long_lines` is shared by all parsers of a program part: the parser's tables are some ten times a line,
  /// so long lines take turns.
  PieceParser(std::string field, std::mutex& long_lines);
  ~PieceParser();
  PieceParser(PieceParser&&) noexcept;
  PieceParser& operator=(PieceParser&&) = delete;

  /// The text, valid UTF-8, alive until the next call and as long as the piece; or nothing and what is bad
  /// about the line. Text files that are not UTF-8 throw DataError with file and byte: a document cannot be
  /// dropped when half of it is written.
  std::optional<std::string_view> parse(RawPiece& piece, BadLine& bad);
  /// Both texts of a line of JSON, likewise: `field` holds the inputs. Empty targets are bad, for nothing
  /// would be learnt from them.
  std::optional<TextPair> parse_pair(RawPiece& piece, const std::string& targets_field, BadLine& bad);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// Counts bad lines, says the first of them in the log, and throws DataError when there are more than
/// allowed.
class BadLines {
 public:
  explicit BadLines(int64_t max) : max_(max) {}
  void add(const BadLine& bad);
  int64_t count() const { return count_; }

 private:
  int64_t max_, count_ = 0;
};

}  // namespace red::data
