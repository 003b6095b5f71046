// The pieces of a SentencePiece model file, which the library tells only in part: read from the file's own
// bytes (protobuf: ModelProto, with pieces in field 1 and the trainer's settings in field 2).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace red::convert {

/// Numbers of the file format.
enum class PieceType { normal = 1, unknown = 2, control = 3, user_defined = 4, unused = 5, byte = 6 };

struct Piece {
  std::string text;
  float score = 0.0F;
  PieceType type = PieceType::normal;
};

struct SentencePieceModel {
  std::vector<Piece> pieces;  ///< by id
  bool is_bpe = false;
};

/// Throws DataError where the bytes are no such file; `name` is for the message.
SentencePieceModel parse_sentencepiece_model(std::string_view bytes, const std::string& name);

}  // namespace red::convert
