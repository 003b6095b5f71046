#include "data/token_file_writer.hpp"

#include <algorithm>
#include <array>
#include <limits>

#include "base/check.hpp"
#include "base/error.hpp"

namespace red::data {
namespace {

template <class T>
std::span<const std::byte> bytes_of(const T& value) {
  return std::as_bytes(std::span(&value, 1));
}

}  // namespace

TokenFileWriter::TokenFileWriter(const std::filesystem::path& prefix, TokenType type)
    : prefix_(prefix), type_(type), bin_(with_suffix(prefix, ".bin")), idx_(with_suffix(prefix, ".idx")) {
  RED_CHECK(type == TokenType::u16 || type == TokenType::i32, "type {}", name_of(type));
  const std::array<char, TokenIndexLayout::kHeaderBytes> counts_come_last{};
  idx_.append(std::string_view(counts_come_last.data(), counts_come_last.size()));
}

void TokenFileWriter::append(std::span<const int32_t> tokens) {
  const auto count = static_cast<int64_t>(tokens.size());
  if (count > std::numeric_limits<int32_t>::max() - sequence_tokens_) {
    throw DataError(
        "document {} of {}.bin has more than 2^31 - 1 tokens, which the index cannot say; split it",
        num_documents_, prefix_.string());
  }
  if (type_ == TokenType::u16) {
    narrow_.clear();
    for (const int32_t token : tokens) {
      RED_CHECK(token >= 0 && token <= std::numeric_limits<uint16_t>::max(), "token {}", token);
      narrow_.push_back(static_cast<uint16_t>(token));
    }
    bin_.append(std::as_bytes(std::span(narrow_)));
  } else {
    bin_.append(std::as_bytes(tokens));
  }
  sequence_tokens_ += count;
}

void TokenFileWriter::end_sequence() {
  const auto length = static_cast<int32_t>(sequence_tokens_);
  idx_.append(bytes_of(length));
  num_tokens_ += sequence_tokens_;
  sequence_tokens_ = 0;
  ++num_sequences_;
}

void TokenFileWriter::end_document() {
  end_sequence();
  ++num_documents_;
  if (sequences_per_document_ == 0) sequences_per_document_ = num_sequences_;
  RED_CHECK(num_sequences_ == num_documents_ * sequences_per_document_, "{} sequences in {} documents",
            num_sequences_, num_documents_);
}

void TokenFileWriter::complete() {
  RED_CHECK(sequence_tokens_ == 0 && num_sequences_ == num_documents_ * sequences_per_document_,
            "a document was not ended; its last sequence has {} tokens", sequence_tokens_);
  // Offsets are running sums of the lengths, which are read back piece by piece.
  std::array<int32_t, 4096> lengths;
  std::array<int64_t, 4096> offsets;
  int64_t offset = 0;
  for (int64_t done = 0; done < num_sequences_;) {
    const auto count = std::min<int64_t>(lengths.size(), num_sequences_ - done);
    const auto part = std::span(lengths).first(static_cast<std::size_t>(count));
    idx_.read_at(TokenIndexLayout::kHeaderBytes + 4 * static_cast<uint64_t>(done),
                 std::as_writable_bytes(part));
    for (std::size_t i = 0; i < part.size(); ++i) {
      offsets[i] = offset;
      offset += part[i] * size_of(type_);
    }
    idx_.append(std::as_bytes(std::span(offsets).first(part.size())));
    done += count;
  }
  for (int64_t document = 0; document <= num_documents_; ++document)
    idx_.append(bytes_of(document * sequences_per_document_));

  std::vector<std::byte> header;
  const auto add = [&](std::span<const std::byte> bytes) {
    header.insert(header.end(), bytes.begin(), bytes.end());
  };
  add(std::as_bytes(std::span(TokenIndexLayout::kMagic)));
  add(bytes_of(TokenIndexLayout::kVersion));
  add(bytes_of(type_));
  add(bytes_of(static_cast<uint64_t>(num_sequences_)));
  add(bytes_of(static_cast<uint64_t>(num_documents_ + 1)));
  idx_.write_at(0, header);

  bin_.sync();
  idx_.sync();
}

void TokenFileWriter::remove_old_index() const {
  std::error_code error;
  std::filesystem::remove(with_suffix(prefix_, ".idx"), error);
  if (error) throw IoError("cannot replace {}.idx: {}", prefix_.string(), error.message());
}

void TokenFileWriter::publish(const std::function<void()>& before_index) {
  remove_old_index();  // it must not meet the new tokens, whenever this is cut off
  bin_.publish();
  if (before_index) before_index();
  idx_.publish();
}

void TokenFileWriter::finish() {
  complete();
  publish();
}

}  // namespace red::data
