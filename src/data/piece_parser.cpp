#include "data/piece_parser.hpp"

#include <simdjson.h>

#include <array>
#include <span>
#include <utility>

#include "base/check.hpp"
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
  std::array<std::string, 2> texts;  ///< of a long line

  using Texts = std::array<std::string_view, 2>;

  /// The texts of these fields (one or two), or why there is one missing.
  std::optional<Texts> fields_of(simdjson::dom::parser& with, const std::string& line,
                                 std::span<const std::string* const> fields, std::string& reason) {
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
    Texts found;
    for (std::size_t i = 0; i < fields.size(); ++i) {
      simdjson::dom::element value;
      if (object.at_key(*fields[i]).get(value) != simdjson::SUCCESS) {
        reason = fmt::format("has no field \"{}\"", *fields[i]);
        return std::nullopt;
      }
      if (value.get(found[i]) != simdjson::SUCCESS) {
        reason = fmt::format("its field \"{}\" is no string", *fields[i]);
        return std::nullopt;
      }
    }
    return found;
  }

  std::optional<Texts> json(RawPiece& piece, std::span<const std::string* const> fields, BadLine& bad) {
    const auto found = json_texts(piece, fields, bad.reason);
    if (!found) bad.place = fmt::format("{}:{}", piece.file, piece.line);
    return found;
  }

  std::optional<Texts> json_texts(RawPiece& piece, std::span<const std::string* const> fields,
                                  std::string& reason) {
    if (piece.is_too_long) {
      reason = fmt::format("is longer than {} MiB", kMaxLineBytes >> 20);
      return std::nullopt;
    }
    // A line at a file's end may lack the room that simdjson reads beyond it.
    piece.bytes.reserve(piece.bytes.size() + kLinePadding);
    if (piece.bytes.size() < kLongLineBytes) return fields_of(parser, piece.bytes, fields, reason);
    const std::lock_guard lock(*long_lines);
    simdjson::dom::parser once(kMaxLineBytes);
    auto found = fields_of(once, piece.bytes, fields, reason);
    if (!found) return std::nullopt;
    for (std::size_t i = 0; i < fields.size(); ++i) {
      texts[i].assign((*found)[i]);
      (*found)[i] = texts[i];
    }
    return found;
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
    const auto texts = impl_->json(piece, std::array<const std::string*, 1>{&impl_->field}, bad);
    return texts ? std::optional((*texts)[0]) : std::nullopt;
  }
  const std::size_t invalid = find_invalid_utf8(piece.bytes);
  if (invalid != std::string_view::npos) {
    throw DataError("{}: invalid UTF-8 at byte {}; convert the file, for instance with iconv", piece.file,
                    piece.offset + invalid);
  }
  return piece.bytes;
}

std::optional<TextPair> PieceParser::parse_pair(RawPiece& piece, const std::string& targets_field,
                                                BadLine& bad) {
  RED_CHECK(piece.is_json, "{}: pairs of plain text", piece.file);
  const std::array<const std::string*, 2> fields = {&impl_->field, &targets_field};
  const auto texts = impl_->json(piece, fields, bad);
  if (!texts) return std::nullopt;
  if ((*texts)[1].empty()) {
    bad = {fmt::format("{}:{}", piece.file, piece.line),
           fmt::format("its field \"{}\" is empty", targets_field)};
    return std::nullopt;
  }
  return TextPair{(*texts)[0], (*texts)[1]};
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
