#include "data/token_file.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <limits>

#include "base/check.hpp"
#include "base/error.hpp"
#include "base/philox.hpp"

namespace red::data {
namespace {

static_assert(std::endian::native == std::endian::little,
              "token files are little-endian and read as they lie");

MappedFile open_index(const std::filesystem::path& path) {
  if (!std::filesystem::exists(path)) {
    throw DataError(
        "{}: not found; token files are PREFIX.bin and PREFIX.idx, written by `redllm data build`",
        path.string());
  }
  return MappedFile(path);
}

InputFile open_tokens(const std::filesystem::path& path) {
  if (!std::filesystem::exists(path)) {
    throw DataError("{}: not found, though its .idx is there; copy both files or build them again",
                    path.string());
  }
  return InputFile(path);
}

/// Tokens of one stored type, read through a buffer on the stack.
template <class T>
void read_as(const InputFile& file, int64_t first, std::span<int32_t> out) {
  std::array<T, 8192 / sizeof(T)> buffer;
  for (std::size_t done = 0; done < out.size();) {
    const std::size_t count = std::min(buffer.size(), out.size() - done);
    const uint64_t position = static_cast<uint64_t>(first) + done;
    file.read_at(position * sizeof(T), std::as_writable_bytes(std::span(buffer.data(), count)));
    for (std::size_t i = 0; i < count; ++i) {
      if constexpr (sizeof(T) > sizeof(int32_t)) {
        if (buffer[i] < std::numeric_limits<int32_t>::min() ||
            buffer[i] > std::numeric_limits<int32_t>::max()) {
          throw DataError("{}: token {} is {}, no possible id", file.path().string(), position + i,
                          buffer[i]);
        }
      }
      out[done + i] = static_cast<int32_t>(buffer[i]);  // NOLINT(bugprone-signed-char-misuse): i8 has a sign
    }
    done += count;
  }
}

}  // namespace

std::string_view name_of(TokenType type) {
  constexpr std::array<std::string_view, 9> names = {"?",   "u8",  "i8",  "i16", "i32",
                                                     "i64", "f64", "f32", "u16"};
  const auto code = static_cast<std::size_t>(type);
  return code < names.size() ? names[code] : names[0];
}

std::filesystem::path with_suffix(const std::filesystem::path& prefix, std::string_view suffix) {
  std::filesystem::path path = prefix;
  path += suffix;
  return path;
}

std::filesystem::path resolve_token_prefix(const std::filesystem::path& prefix) {
  std::filesystem::path longer = with_suffix(prefix, "_text_document");
  if (std::filesystem::exists(with_suffix(prefix, ".idx"))) return prefix;
  if (std::filesystem::exists(with_suffix(longer, ".idx"))) return longer;
  throw DataError(
      "no token files: neither {0}.idx nor {1}.idx exists; `redllm data build --out {0}` writes them",
      prefix.string(), longer.string());
}

TokenFile::TokenFile(const std::filesystem::path& prefix)
    : prefix_(prefix),
      idx_(open_index(with_suffix(prefix, ".idx"))),
      bin_(open_tokens(with_suffix(prefix, ".bin"))) {
  const std::filesystem::path idx = with_suffix(prefix, ".idx");
  check_header(idx);
  check_arrays(idx);
  // Sum of lengths is known to be whole: the offsets are contiguous.
  if (num_sequences_ > 0) {
    const int64_t last = num_sequences_ - 1;
    num_tokens_ = load<int64_t>(offsets() + 8 * last) / size_of(type_) + load<int32_t>(lengths() + 4 * last);
  }
  const auto expected = static_cast<uint64_t>(num_tokens_ * size_of(type_));
  if (bin_.num_bytes() != expected) {
    throw DataError("{}: {} bytes, but its .idx lists {} tokens of type {}, {} bytes; {}",
                    bin_.path().string(), bin_.num_bytes(), num_tokens_, name_of(type_), expected,
                    bin_.num_bytes() < expected ? "it was truncated, or the two files do not belong together"
                                                : "the two files do not belong together");
  }
  idx_.drop_pages();
}

void TokenFile::check_header(const std::filesystem::path& idx) {
  constexpr uint64_t header = TokenIndexLayout::kHeaderBytes;
  const std::span<const std::byte> bytes = idx_.bytes();
  const std::string name = idx.string();
  if (bytes.size() < header) {
    throw DataError("{}: {} bytes, shorter than the header of {}; it was truncated", name, bytes.size(),
                    header);
  }
  if (std::memcmp(bytes.data(), TokenIndexLayout::kMagic.data(), TokenIndexLayout::kMagic.size()) != 0) {
    throw DataError("{}: does not begin with MMIDIDX; it is no index of Megatron token files", name);
  }
  const auto version = load<uint64_t>(bytes.data() + 9);
  if (version != TokenIndexLayout::kVersion) {
    throw DataError("{}: version {} of the index; this program reads version 1", name, version);
  }
  const auto code = load<uint8_t>(bytes.data() + 17);
  type_ = static_cast<TokenType>(code);
  if (size_of(type_) == 0) throw DataError("{}: unknown type code {} of tokens (1 ... 8 exist)", name, code);
  if (type_ == TokenType::f32 || type_ == TokenType::f64) {
    throw DataError("{}: holds {} values, not token ids", name, name_of(type_));
  }
  const auto sequences = load<uint64_t>(bytes.data() + 18), boundaries = load<uint64_t>(bytes.data() + 26);
  // Divisions, because huge counts of a damaged header would overflow a product.
  const uint64_t rest = bytes.size() - header;
  if (sequences > rest / 12 || boundaries > (rest - 12 * sequences) / 8 ||
      rest != 12 * sequences + 8 * boundaries) {
    throw DataError("{}: {} bytes do not fit {} sequences and {} document boundaries (34 + 12 S + 8 D); {}",
                    name, bytes.size(), sequences, boundaries, "it was truncated or its header is damaged");
  }
  if (boundaries == 0) throw DataError("{}: no document boundaries, not even the first, 0", name);
  num_sequences_ = static_cast<int64_t>(sequences);
  num_documents_ = static_cast<int64_t>(boundaries) - 1;
}

void TokenFile::check_arrays(const std::filesystem::path& idx) const {
  // The largest token count whose bytes an int64 holds.
  const int64_t limit = std::numeric_limits<int64_t>::max() / size_of(type_);
  int64_t tokens = 0;
  for (int64_t i = 0; i < num_sequences_; ++i) {
    const auto length = load<int32_t>(lengths() + 4 * i);
    const auto offset = load<int64_t>(offsets() + 8 * i);
    if (length < 0) throw DataError("{}: sequence {} has the length {}", idx.string(), i, length);
    if (offset != tokens * size_of(type_)) {
      throw DataError("{}: sequence {} begins at byte {} of the .bin, the lengths before it end at {}",
                      idx.string(), i, offset, tokens * size_of(type_));
    }
    if (length > limit - tokens) throw DataError("{}: sequence {} ends beyond 2^63 bytes", idx.string(), i);
    tokens += length;
  }
  int64_t previous = 0;
  for (int64_t d = 0; d <= num_documents_; ++d) {
    const auto boundary = load<int64_t>(boundaries() + 8 * d);
    const bool wrong_end = d == num_documents_ && boundary != num_sequences_;
    if ((d == 0 && boundary != 0) || boundary < previous || boundary > num_sequences_ || wrong_end) {
      throw DataError("{}: document boundary {} is {}; boundaries rise from 0 to the {} sequences",
                      idx.string(), d, boundary, num_sequences_);
    }
    previous = boundary;
  }
}

int64_t TokenFile::document_begin(int64_t document) const {
  RED_CHECK(document >= 0 && document <= num_documents_, "document {} of {}", document, num_documents_);
  return sequence_begin(load<int64_t>(boundaries() + 8 * document));
}

int64_t TokenFile::sequence_begin(int64_t sequence) const {
  RED_CHECK(sequence >= 0 && sequence <= num_sequences_, "sequence {} of {}", sequence, num_sequences_);
  if (sequence == num_sequences_) return num_tokens_;
  return load<int64_t>(offsets() + 8 * sequence) / size_of(type_);
}

int64_t TokenFile::num_sequences_of(int64_t document) const {
  RED_CHECK(document >= 0 && document < num_documents_, "document {} of {}", document, num_documents_);
  return load<int64_t>(boundaries() + 8 * (document + 1)) - load<int64_t>(boundaries() + 8 * document);
}

bool TokenFile::holds_pairs() const {
  for (int64_t document = 0; document < num_documents_; ++document) {
    if (num_sequences_of(document) != 2) return false;
  }
  return num_documents_ > 0;
}

std::string TokenFile::contents() const {
  constexpr int64_t looked_at = 4096;
  const int64_t step = std::max<int64_t>(1, num_documents_ / looked_at);
  uint64_t hash = 0;
  for (int64_t document = 0; document < num_documents_; document += step)
    hash = hash_name(fmt::format("{} {}", document_begin(document), num_sequences_of(document)), hash);
  return fmt::format("{} documents, {} tokens, lengths {:016x}", num_documents_, num_tokens_, hash);
}

int64_t TokenFile::document_of(int64_t token) const {
  RED_CHECK(token >= 0 && token < num_tokens_, "token {} of {}", token, num_tokens_);
  int64_t low = 0,
          high = num_documents_;  // begin(low) <= token < begin(high); empty documents are passed over
  while (high - low > 1) {
    const int64_t middle = low + (high - low) / 2;
    (document_begin(middle) <= token ? low : high) = middle;
  }
  return low;
}

void TokenFile::read(int64_t first, std::span<int32_t> out) const {
  const auto count = static_cast<int64_t>(out.size());
  RED_CHECK(first >= 0 && count <= num_tokens_ && first <= num_tokens_ - count, "tokens {} + {} of {}", first,
            count, num_tokens_);
  switch (type_) {
    case TokenType::u8:
      return read_as<uint8_t>(bin_, first, out);
    case TokenType::i8:
      return read_as<int8_t>(bin_, first, out);
    case TokenType::i16:
      return read_as<int16_t>(bin_, first, out);
    case TokenType::u16:
      return read_as<uint16_t>(bin_, first, out);
    case TokenType::i32:
      return read_as<int32_t>(bin_, first, out);
    case TokenType::i64:
      return read_as<int64_t>(bin_, first, out);
    case TokenType::f32:
    case TokenType::f64:
      break;
  }
  RED_CHECK(false, "type {}", name_of(type_));
}

}  // namespace red::data
