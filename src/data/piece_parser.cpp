#include "data/piece_parser.hpp"

#include <simdjson.h>

#include <utility>

#include "base/error.hpp"
#include "base/log.hpp"
#include "data/utf8.hpp"

namespace red::data {
namespace {

constexpr std::size_t kLongLineBytes = 1 << 20;
static_assert(kLinePadding >= simdjson::SIMDJSON_PADDING);

}  // namespace

struct PieceParser::Impl {
  std::string field;
  std::mutex* long_lines;
  simdjson::dom::parser parser{kLongLineBytes};
  std::string text;  ///< of a long line

  /// The field of the line, or why there is none.
  std::optional<std::string_view> field_of(simdjson::dom::parser& with, const std::string& line,
                                           std::string& reason) {
    simdjson::dom::element root;
    if (const auto error = with.parse(line.data(), line.size(), false).get(root)) {
      reason = fmt::format("is no valid JSON: {}", simdjson::error_message(error));
      return std::nullopt;
    }
    simdjson::dom::object object;
    if (root.get(object) != simdjson::SUCCESS) {
      reason = "is no JSON object";
      return std::nullopt;
    }
    simdjson::dom::element value;
    if (object.at_key(field).get(value) != simdjson::SUCCESS) {
      reason = fmt::format("has no field \"{}\"", field);
      return std::nullopt;
    }
    std::string_view found;
    if (value.get(found) != simdjson::SUCCESS) {
      reason = fmt::format("its field \"{}\" is no string", field);
      return std::nullopt;
    }
    return found;
  }

  std::optional<std::string_view> json(RawPiece& piece, std::string& reason) {
    if (piece.is_too_long) {
      reason = fmt::format("is longer than {} MiB", kMaxLineBytes >> 20);
      return std::nullopt;
    }
    // A line at a file's end may lack the room that simdjson reads beyond it.
    piece.bytes.reserve(piece.bytes.size() + kLinePadding);
    if (piece.bytes.size() < kLongLineBytes) return field_of(parser, piece.bytes, reason);
    const std::lock_guard lock(*long_lines);
    simdjson::dom::parser once(kMaxLineBytes);
    const auto found = field_of(once, piece.bytes, reason);
    if (!found) return std::nullopt;
    text.assign(*found);
    return text;
  }
};

PieceParser::PieceParser(std::string field, std::mutex& long_lines) : impl_(std::make_unique<Impl>()) {
  impl_->field = std::move(field);
  impl_->long_lines = &long_lines;
}
PieceParser::~PieceParser() = default;
PieceParser::PieceParser(PieceParser&&) noexcept = default;

std::optional<std::string_view> PieceParser::parse(RawPiece& piece, BadLine& bad) {
  if (piece.is_json) {
    const auto text = impl_->json(piece, bad.reason);
    if (!text) bad.place = fmt::format("{}:{}", piece.file, piece.line);
    return text;
  }
  const std::size_t invalid = find_invalid_utf8(piece.bytes);
  if (invalid != std::string_view::npos) {
    throw DataError("{}: invalid UTF-8 at byte {}; convert the file, for instance with iconv", piece.file,
                    piece.offset + invalid);
  }
  return piece.bytes;
}

void BadLines::add(const BadLine& bad) {
  ++count_;
  if (count_ > max_) {
    if (max_ == 0) {
      throw DataError("{}: {}; mend it, or let bad lines be skipped with --max-bad-lines N", bad.place,
                      bad.reason);
    }
    throw DataError("{}: {}; bad line number {}, --max-bad-lines allows {}", bad.place, bad.reason, count_,
                    max_);
  }
  constexpr int64_t shown = 20;
  if (count_ <= shown) log::warning("{}: {}; skipped", bad.place, bad.reason);
  if (count_ == shown + 1) log::warning("more bad lines are skipped; only their number is told at the end");
}

}  // namespace red::data
