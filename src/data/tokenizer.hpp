// The tokenizer: a SentencePiece model under rules that lose nothing, so that decode(encode(x)) == x for
// every valid UTF-8 text, and that text never becomes a control id: "[EOD]" or "<s>" in a text are plain
// text.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/token_stream.hpp"

namespace red::data {

/// Names of the control symbols in the model file.
struct ControlSymbols {
  static constexpr const char* kPad = "<pad>";
  static constexpr const char* kBos = "<s>";
  static constexpr const char* kEos = "</s>";
  static constexpr const char* kEod = "[EOD]";
};

/// Immutable once loaded; threads share it.
class Tokenizer {
 public:
  /// Throws DataError when the file is no SentencePiece model, lacks a control symbol or byte fallback, or
  /// changes text (dummy prefix, normalisation).
  explicit Tokenizer(const std::filesystem::path& path);
  /// The same from the bytes of a model file; `name` is for messages.
  static Tokenizer from_bytes(const std::string& bytes, const std::string& name);
  ~Tokenizer();
  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;

  const SpecialIds& ids() const;
  int64_t vocabulary_size() const { return ids().vocabulary_size; }
  /// SHA-256 of the model file, in hexadecimal.
  const std::string& digest() const;

  /// Appends the ids of `text`. Throws DataError with the byte offset where it is not valid UTF-8. To encode
  /// many texts, an Encoder is faster.
  void encode(std::string_view text, std::vector<int32_t>& ids) const;
  std::vector<int32_t> encode(std::string_view text) const;
  /// Control ids give nothing. Bytes that are no UTF-8 (a character not finished yet) become U+FFFD. Throws
  /// DataError for ids outside the vocabulary.
  std::string decode(std::span<const int32_t> ids) const;
  /// decode() with control ids shown by name, for people: "... end.[EOD]Begin".
  std::string decode_visibly(std::span<const int32_t> ids) const;
  std::string piece(int32_t id) const;
  /// Bytes that the id adds to a text: 0 for control ids.
  int64_t num_text_bytes(int32_t id) const;

 private:
  friend class Encoder;
  struct Impl;
  explicit Tokenizer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

/// Encodes for one thread, remembering what it has encoded: the same ids as Tokenizer::encode, many times
/// faster. Texts are cut where no piece of the vocabulary can reach across, so units repeat and never
/// influence each other. Holds at most about 16 MiB.
class Encoder {
 public:
  explicit Encoder(const Tokenizer& tokenizer);
  ~Encoder();
  Encoder(Encoder&&) noexcept;
  Encoder& operator=(Encoder&&) noexcept;

  /// As Tokenizer::encode.
  void encode(std::string_view text, std::vector<int32_t>& ids);

 private:
  void encode_unit(std::string_view unit, std::vector<int32_t>& ids);

  const Tokenizer::Impl* tokenizer_;
  struct Memory;
  std::unique_ptr<Memory> memory_;
};

}  // namespace red::data
