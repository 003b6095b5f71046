// Megatron's token files, read: PREFIX.bin holds raw tokens, PREFIX.idx lengths, offsets and document
// boundaries (docs/data-format.md). The index is mapped and checked whole when opened, so that nothing it
// says needs a second look; tokens are read by offset, which keeps resident memory constant and turns a
// failing disk into an error instead of a signal.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

#include "data/file_io.hpp"

namespace red::data {

/// Codes of the index header.
enum class TokenType : uint8_t { u8 = 1, i8 = 2, i16 = 3, i32 = 4, i64 = 5, f64 = 6, f32 = 7, u16 = 8 };

constexpr int64_t size_of(TokenType type) {
  switch (type) {
    case TokenType::u8:
    case TokenType::i8:
      return 1;
    case TokenType::i16:
    case TokenType::u16:
      return 2;
    case TokenType::i32:
    case TokenType::f32:
      return 4;
    case TokenType::i64:
    case TokenType::f64:
      return 8;
  }
  return 0;
}
std::string_view name_of(TokenType type);

/// The layout's fixed numbers, shared by reader and writer.
struct TokenIndexLayout {
  static constexpr std::string_view kMagic{"MMIDIDX\0\0", 9};
  static constexpr uint64_t kVersion = 1;
  static constexpr uint64_t kHeaderBytes = 34;  ///< so all arrays lie unaligned
};

/// PREFIX or PREFIX_text_document, whichever has a .idx. Throws DataError naming both when neither has.
std::filesystem::path resolve_token_prefix(const std::filesystem::path& prefix);
/// PREFIX.bin, PREFIX.idx: appends, so that a '.' inside the prefix stays.
std::filesystem::path with_suffix(const std::filesystem::path& prefix, std::string_view suffix);

class TokenFile {
 public:
  /// Opens and checks all of the index, about a second for 50 million documents. Throws DataError that says
  /// what is wrong where, IoError when a file cannot be read.
  explicit TokenFile(const std::filesystem::path& prefix);

  const std::filesystem::path& prefix() const { return prefix_; }
  const std::filesystem::path& bin_path() const { return bin_.path(); }
  TokenType type() const { return type_; }
  int64_t num_tokens() const { return num_tokens_; }
  int64_t num_documents() const { return num_documents_; }
  int64_t num_sequences() const { return num_sequences_; }

  /// First token of document d; num_tokens() for d = num_documents().
  int64_t document_begin(int64_t document) const;
  /// Sequences of document d.
  int64_t num_sequences_of(int64_t document) const;
  /// First token of sequence s; num_tokens() for s = num_sequences().
  int64_t sequence_begin(int64_t sequence) const;
  /// Every document has two sequences, inputs and targets.
  bool holds_pairs() const;
  /// What the file holds, in words that differ where counts or lengths of documents do, by a sample of 4,096.
  std::string contents() const;
  /// The document that holds a token, in O(log documents).
  int64_t document_of(int64_t token) const;
  /// Tokens first ... first + out.size() - 1, which must exist. Values are as stored, of any sign; those that
  /// no int32 holds throw DataError.
  void read(int64_t first, std::span<int32_t> out) const;
  /// See MappedFile::drop_pages, for the index.
  void drop_index_pages() const { idx_.drop_pages(); }

 private:
  void check_header(const std::filesystem::path& idx);
  void check_arrays(const std::filesystem::path& idx) const;
  const std::byte* lengths() const { return idx_.bytes().data() + TokenIndexLayout::kHeaderBytes; }
  const std::byte* offsets() const { return lengths() + 4 * num_sequences_; }
  const std::byte* boundaries() const { return offsets() + 8 * num_sequences_; }

  std::filesystem::path prefix_;
  MappedFile idx_;
  InputFile bin_;
  TokenType type_ = TokenType::i32;
  int64_t num_sequences_ = 0, num_documents_ = 0, num_tokens_ = 0;
};

}  // namespace red::data
