// Megatron's token files, written: byte for byte what its IndexedDatasetBuilder makes of one sequence per
// document, or of several. Lengths go straight into the index file, so memory does not grow with the number
// of documents.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <vector>

#include "data/file_io.hpp"
#include "data/token_file.hpp"

namespace red::data {

/// The type Megatron picks: u16 below 65,500, else i32.
constexpr TokenType token_type_for(int64_t vocabulary_size) {
  return vocabulary_size < 65500 ? TokenType::u16 : TokenType::i32;
}

class TokenFileWriter {
 public:
  /// Writes aside until finish(); an unfinished writer leaves nothing behind. Throws IoError.
  TokenFileWriter(const std::filesystem::path& prefix, TokenType type);

  /// A document may come in pieces: append(...) as often as needed, then end_document().
  void append(std::span<const int32_t> tokens);
  /// What follows is another sequence of the same document. Every document has as many sequences.
  void end_sequence();
  void end_document();
  /// Everything on disk, still aside. What can fail for want of room fails here.
  void complete();
  /// After complete(): under the final names, the index last, so where there is an index all is whole.
  /// `before_index` runs just before that, for files that describe these two.
  void publish(const std::function<void()>& before_index = {});
  void finish();  ///< complete() and publish()
  /// Takes away an older index of this name: from here on, older files are no longer whole.
  void remove_old_index() const;

  int64_t num_documents() const { return num_documents_; }
  int64_t num_tokens() const { return num_tokens_; }

 private:
  std::filesystem::path prefix_;
  TokenType type_;
  OutputFile bin_, idx_;
  std::vector<uint16_t> narrow_;  ///< tokens on their way to a u16 file
  int64_t num_documents_ = 0, num_tokens_ = 0, num_sequences_ = 0;
  int64_t sequence_tokens_ = 0;         ///< of the sequence that is open
  int64_t sequences_per_document_ = 0;  ///< 0: no document yet
};

}  // namespace red::data
