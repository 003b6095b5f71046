#include "convert/sentencepiece_model.hpp"

#include <bit>
#include <cstring>

#include "base/error.hpp"

namespace red::convert {
namespace {

enum class Wire : uint64_t { varint = 0, fixed64 = 1, bytes = 2, fixed32 = 5 };

/// Fields of one protobuf message, one after another.
class Message {
 public:
  Message(std::string_view bytes, const std::string& name) : bytes_(bytes), name_(name) {}

  bool next() {
    if (bytes_.empty()) return false;
    const uint64_t tag = varint();
    field_ = tag >> 3;
    switch (static_cast<Wire>(tag & 7)) {
      case Wire::varint:
        number_ = varint();
        break;
      case Wire::fixed64:
        text_ = take(8);
        break;
      case Wire::bytes:
        text_ = take(varint());
        break;
      case Wire::fixed32:
        text_ = take(4);
        break;
      default:
        fail();
    }
    return true;
  }
  uint64_t field() const { return field_; }
  uint64_t number() const { return number_; }      ///< of a varint
  std::string_view text() const { return text_; }  ///< of anything else
  float real() const {
    if (text_.size() != sizeof(float)) fail();
    float value = 0.0F;
    std::memcpy(&value, text_.data(), sizeof(value));
    return value;
  }

 private:
  [[noreturn]] void fail() const { throw DataError("tokenizer {}: is no SentencePiece model", name_); }
  std::string_view take(uint64_t count) {
    if (count > bytes_.size()) fail();
    const std::string_view part = bytes_.substr(0, count);
    bytes_.remove_prefix(count);
    return part;
  }
  uint64_t varint() {
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
      const auto byte = static_cast<unsigned char>(take(1).front());
      value |= static_cast<uint64_t>(byte & 0x7FU) << shift;
      if (byte < 0x80) return value;
    }
    fail();
  }

  std::string_view bytes_, text_;
  const std::string& name_;
  uint64_t field_ = 0, number_ = 0;
};

Piece parse_piece(std::string_view bytes, const std::string& name) {
  Piece piece;
  Message message(bytes, name);
  while (message.next()) {
    if (message.field() == 1) piece.text = message.text();
    if (message.field() == 2) piece.score = message.real();
    if (message.field() == 3) piece.type = static_cast<PieceType>(message.number());
  }
  return piece;
}

bool is_bpe(std::string_view trainer, const std::string& name) {
  constexpr uint64_t model_type = 3, bpe = 2;
  bool found = false;
  Message message(trainer, name);
  while (message.next()) {
    if (message.field() == model_type) found = message.number() == bpe;
  }
  return found;
}

}  // namespace

SentencePieceModel parse_sentencepiece_model(std::string_view bytes, const std::string& name) {
  SentencePieceModel model;
  Message message(bytes, name);
  while (message.next()) {
    if (message.field() == 1) model.pieces.push_back(parse_piece(message.text(), name));
    if (message.field() == 2) model.is_bpe = is_bpe(message.text(), name);
  }
  if (model.pieces.empty()) throw DataError("tokenizer {}: has no pieces", name);
  return model;
}

}  // namespace red::convert
