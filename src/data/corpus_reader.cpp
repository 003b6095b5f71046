#include "data/corpus_reader.hpp"

#include <algorithm>
#include <utility>

#include "base/error.hpp"
#include "data/byte_stream.hpp"
#include "data/utf8.hpp"

namespace red::data {
namespace {

constexpr std::size_t kReadBytes = 1 << 18;

bool is_blank(std::string_view line) {
  return line.find_first_not_of(" \t\r\n\v\f") == std::string_view::npos;
}

bool is_json_name(const std::filesystem::path& path) {
  const auto extension = without_compression(path).extension();
  return extension == ".jsonl" || extension == ".json" || extension == ".ndjson";
}

/// Where to cut a text that goes on: before the last space after something else, or after the last line's
/// end, for no token reaches across these; failing both, between characters.
std::size_t place_to_cut(std::string_view text, std::size_t lowest) {
  for (std::size_t at = text.size() - 1; at > lowest; --at) {
    if (text[at] == ' ' && text[at - 1] != ' ') return at;
  }
  const std::size_t newline = text.rfind('\n', text.size() - 2);
  if (newline != std::string_view::npos && newline >= lowest && text[newline + 1] != '\n') return newline + 1;
  // Bytes that are no UTF-8 may go on for ever; they are reported when they are parsed.
  const std::size_t at = utf8_floor(text, text.size() - 1);
  return at + 4 > text.size() && at > 0 ? at : text.size();
}

}  // namespace

/// One open input: its lines, or its text in pieces.
class CorpusReader::File {
 public:
  File(const std::filesystem::path& path, const CorpusOptions& options)
      : name_(path.string()), options_(options), stream_(path) {
    using Format = CorpusOptions::Format;
    is_json_ = options.format == Format::jsonl || (options.format == Format::by_name && is_json_name(path));
  }

  std::optional<RawPiece> next() {
    if (is_json_) return next_json();
    return options_.split == CorpusOptions::Split::file ? next_of_whole() : next_of_lines();
  }
  uint64_t num_raw_bytes() const { return stream_.num_raw_bytes(); }

 private:
  bool fill() {
    if (at_end_) return false;
    buffer_.erase(0, begin_);
    begin_ = 0;
    const std::size_t size = buffer_.size();
    buffer_.resize(size + kReadBytes);
    const std::size_t got = stream_.read({buffer_.data() + size, kReadBytes});
    buffer_.resize(size + got);
    at_end_ = got < kReadBytes;
    return got > 0;
  }

  /// The next line with its end, or its first `limit` bytes when it is longer. Empty at the end of the file.
  std::string_view take_line(std::size_t limit) {
    for (std::size_t looked = 0;;) {
      const std::string_view rest = std::string_view(buffer_).substr(begin_);
      const std::size_t newline = rest.find('\n', looked);
      looked = rest.size();
      if (newline == std::string_view::npos && rest.size() < limit && fill()) continue;
      const std::size_t length =
          std::min(newline == std::string_view::npos ? rest.size() : newline + 1, limit);
      const std::string_view line = std::string_view(buffer_).substr(begin_, length);
      begin_ += length;
      offset_ += length;
      return line;
    }
  }

  std::optional<RawPiece> next_json() {
    for (;;) {
      std::string_view line = take_line(kMaxLineBytes);
      if (line.empty()) return std::nullopt;
      ++line_;
      RawPiece piece;
      piece.file = name_;
      piece.is_json = true;
      piece.line = line_;
      if (line.size() == kMaxLineBytes && line.back() != '\n') {
        piece.is_too_long = true;
        while (!line.empty() && line.back() != '\n') line = take_line(kMaxLineBytes);
        return piece;
      }
      if (line_ == 1 && line.starts_with("\xef\xbb\xbf")) line.remove_prefix(3);
      if (is_blank(line)) continue;
      piece.bytes.reserve(line.size() + kLinePadding);
      piece.bytes.assign(line);
      return piece;
    }
  }

  std::optional<RawPiece> next_of_whole() {
    while (buffer_.size() - begin_ <= kMaxPieceBytes && fill()) {
    }
    const std::string_view rest = std::string_view(buffer_).substr(begin_);
    if (rest.empty()) return std::nullopt;
    const bool last = rest.size() <= kMaxPieceBytes;
    RawPiece piece = text_piece();
    piece.bytes =
        rest.substr(0, last ? rest.size() : place_to_cut(rest.substr(0, kMaxPieceBytes), kMaxPieceBytes / 2));
    piece.ends_document = last;
    begin_ += piece.bytes.size();
    offset_ += piece.bytes.size();
    return piece;
  }

  std::optional<RawPiece> next_of_lines() {
    RawPiece piece = text_piece();
    for (;;) {
      const std::string_view line = take_line(kMaxPieceBytes / 2);
      if (line.empty()) {
        piece.ends_document = true;
        if (piece.bytes.empty() && !inside_) return std::nullopt;
        inside_ = false;
        return piece;
      }
      const bool whole = starts_line_ && (line.back() == '\n' || is_at_end());
      starts_line_ = line.back() == '\n';
      if (whole && is_border(line)) {
        if (piece.bytes.empty() && !inside_) {
          piece.offset = offset_;
          continue;
        }
        inside_ = false;
        return piece;
      }
      piece.bytes.append(line);
      inside_ = true;
      if (piece.bytes.size() >= kMaxPieceBytes / 2) {
        piece.ends_document = false;
        if (!starts_line_ && !is_at_end()) cut_back(piece, line.size());
        return piece;
      }
    }
  }

  bool is_at_end() const { return at_end_ && begin_ == buffer_.size(); }

  /// A piece that ends inside a line, with the last `taken` bytes just taken, gives its last word back.
  void cut_back(RawPiece& piece, std::size_t taken) {
    const std::size_t keep = place_to_cut(piece.bytes, piece.bytes.size() - taken / 2);
    const std::size_t back = piece.bytes.size() - keep;
    begin_ -= back;
    offset_ -= back;
    piece.bytes.resize(keep);
    starts_line_ = piece.bytes.back() == '\n';
  }

  bool is_border(std::string_view line) const {
    if (options_.split == CorpusOptions::Split::blank_lines) return is_blank(line);
    while (!line.empty() && (line.back() == '\n' || line.back() == '\r')) line.remove_suffix(1);
    return line == options_.separator;
  }

  RawPiece text_piece() const {
    RawPiece piece;
    piece.file = name_;
    piece.offset = offset_;
    return piece;
  }

  std::string name_;
  const CorpusOptions& options_;
  ByteStream stream_;
  bool is_json_ = false, at_end_ = false;
  std::string buffer_;
  std::size_t begin_ = 0;  ///< of what is not taken yet, in the buffer
  uint64_t offset_ = 0;    ///< of the same, in the file
  int64_t line_ = 0;
  bool inside_ = false;      ///< a document is open
  bool starts_line_ = true;  ///< the next byte begins a line
};

CorpusReader::CorpusReader(CorpusOptions options) : options_(std::move(options)) {
  if (options_.inputs.empty()) throw ConfigError("no input: name at least one file of text");
  for (const auto& path : options_.inputs) {
    if (std::filesystem::is_directory(path)) {
      throw ConfigError("input {}: is a folder; give its files, as in {}/*.jsonl", path.string(),
                        path.string());
    }
    std::error_code error;
    const auto size = std::filesystem::file_size(path, error);
    if (error) throw IoError("input {}: {}", path.string(), error.message());
    num_file_bytes_ += size;
  }
}

CorpusReader::~CorpusReader() = default;

uint64_t CorpusReader::num_file_bytes_read() const {
  return num_bytes_done_ + (file_ ? file_->num_raw_bytes() : 0);
}

std::optional<RawPiece> CorpusReader::next() {
  for (;;) {
    if (!file_) {
      if (next_input_ == options_.inputs.size()) return std::nullopt;
      file_ = std::make_unique<File>(options_.inputs[next_input_++], options_);
    }
    if (std::optional<RawPiece> piece = file_->next()) return piece;
    num_bytes_done_ += file_->num_raw_bytes();
    file_.reset();
  }
}

}  // namespace red::data
