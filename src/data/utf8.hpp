// UTF-8 at the edges: what is not valid is found and placed, and texts are cut between characters only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace red::data {

/// Byte where the text stops being valid UTF-8 (overlong forms, surrogates and a cut-off last character are
/// not valid); npos when all of it is.
std::size_t find_invalid_utf8(std::string_view text);

/// Bytes of the character that begins with `lead`, in valid UTF-8.
constexpr std::size_t utf8_length(char lead) {
  const auto byte = static_cast<unsigned char>(lead);
  return byte < 0x80 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
}

constexpr bool is_utf8_continuation(char byte) {
  return (static_cast<unsigned char>(byte) & 0xC0) == 0x80;
}

/// The largest place <= `at` that is not inside a character.
constexpr std::size_t utf8_floor(std::string_view text, std::size_t at) {
  while (at > 0 && at < text.size() && is_utf8_continuation(text[at])) --at;
  return at;
}

/// Code point of the character at `at`, in valid UTF-8.
constexpr char32_t utf8_decode(std::string_view text, std::size_t at) {
  const std::size_t length = utf8_length(text[at]);
  auto code = static_cast<char32_t>(static_cast<unsigned char>(text[at]));
  if (length > 1) code &= 0x7FU >> length;
  for (std::size_t i = 1; i < length; ++i)
    code = code << 6 | (static_cast<unsigned char>(text[at + i]) & 0x3FU);
  return code;
}

}  // namespace red::data
