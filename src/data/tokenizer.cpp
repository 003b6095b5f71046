#include "data/tokenizer.hpp"

#include <sentencepiece_processor.h>

#include <algorithm>
#include <array>
#include <bitset>
#include <limits>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "base/error.hpp"
#include "data/file_io.hpp"
#include "data/sha256.hpp"
#include "data/utf8.hpp"

namespace red::data {
namespace {

/// SentencePiece writes a space as this character; the character itself, in a text, goes through byte pieces,
/// or it would come back as a space.
constexpr std::string_view kSpaceMark = "\xe2\x96\x81";
constexpr std::size_t kMaxUnitBytes = 1 << 16;  ///< longer units are cut, or SentencePiece needs gigabytes
constexpr std::size_t kMaxRememberedBytes = 48;
constexpr std::size_t kMaxRememberedUnits = 1 << 17;

/// Which pairs of characters stand side by side in some piece. Between any others no piece can reach across,
/// so a text may be cut there without changing its ids.
class Adjacency {
 public:
  void add_piece(std::string_view piece) {
    char32_t previous = 0;
    for (std::size_t at = 0; at < piece.size(); at += utf8_length(piece[at])) {
      char32_t next = utf8_decode(piece, at);
      if (next == 0x2581) next = ' ';
      if (at > 0) add(previous, next);
      previous = next;
    }
  }
  bool contains(char32_t a, char32_t b) const {
    return a < 128 && b < 128 ? ascii_[a * 128 + b] : others_.contains(key(a, b));
  }

 private:
  static uint64_t key(char32_t a, char32_t b) { return static_cast<uint64_t>(a) << 32 | b; }
  void add(char32_t a, char32_t b) {
    if (a < 128 && b < 128) {
      ascii_[a * 128 + b] = true;
    } else {
      others_.insert(key(a, b));
    }
  }
  std::bitset<std::size_t{128} * 128> ascii_;
  std::unordered_set<uint64_t> others_;
};

std::string read_model(const std::filesystem::path& path) {
  if (!std::filesystem::exists(path)) {
    throw DataError("tokenizer {}: not found; `redllm tokenizer train --out {}` makes one", path.string(),
                    path.string());
  }
  return read_whole(path);
}

}  // namespace

struct Tokenizer::Impl {
  std::string name;
  std::string digest;
  sentencepiece::SentencePieceProcessor model;
  SpecialIds ids;
  std::array<int32_t, 256> byte_ids{};
  Adjacency adjacency;

  Impl(const std::string& bytes, std::string from) : name(std::move(from)), digest(sha256_hex(bytes)) {
    const auto status = model.LoadFromSerializedProto(bytes);
    if (bytes.empty() || !status.ok()) throw DataError("tokenizer {}: is no SentencePiece model", name);
    ids.vocabulary_size = model.GetPieceSize();
    ids.tokenizer_sha256 = digest;
    ids.pad = control(ControlSymbols::kPad);
    ids.bos = control(ControlSymbols::kBos);
    ids.eos = control(ControlSymbols::kEos);
    ids.eod = control(ControlSymbols::kEod);
    for (int byte = 0; byte < 256; ++byte) byte_ids[static_cast<std::size_t>(byte)] = byte_piece(byte);
    for (int id = 0; id < model.GetPieceSize(); ++id) {
      if (!model.IsControl(id) && !model.IsUnknown(id) && !model.IsByte(id))
        adjacency.add_piece(model.IdToPiece(id));
    }
  }

  int32_t control(const char* symbol) const {
    const int id = model.PieceToId(symbol);
    if (!model.IsControl(id)) {
      throw DataError("tokenizer {}: has no control symbol {}; train one with `redllm tokenizer train`", name,
                      symbol);
    }
    return id;
  }
  int32_t byte_piece(int byte) const {
    const std::string piece = fmt::format("<0x{:02X}>", byte);
    const int id = model.PieceToId(piece);
    if (!model.IsByte(id)) {
      throw DataError("tokenizer {}: has no byte piece {}; it must be trained with byte fallback", name,
                      piece);
    }
    return id;
  }

  std::string decode(const std::vector<int>& tokens) const {
    for (const int id : tokens) {
      if (id < 0 || id >= ids.vocabulary_size) {
        throw DataError("id {} is outside the vocabulary of {} of tokenizer {}", id, ids.vocabulary_size,
                        name);
      }
    }
    std::string text;
    const auto status = model.Decode(tokens, &text);
    if (!status.ok()) throw DataError("tokenizer {}: cannot decode: {}", name, status.ToString());
    return text;
  }
};

Tokenizer::Tokenizer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {
  // What normalisation, a dummy prefix or trimmed white space would change.
  const std::string probe =
      "  a\tb\r\n\n  (c)  \xef\xac\x81 \xe2\x91\xa0\xe3\x80\x80\xe2\x96\x81 A\xcc\x8a \n";
  const std::string back = decode(encode(probe));
  if (back != probe) {
    throw DataError(
        "tokenizer {}: changes text, {} bytes come back as {}; it must be trained with identity "
        "normalisation, "
        "without dummy prefix and with white space kept, as `redllm tokenizer train` does",
        impl_->name, probe.size(), back.size());
  }
}

Tokenizer::Tokenizer(const std::filesystem::path& path)
    : Tokenizer(std::make_unique<Impl>(read_model(path), path.string())) {}

Tokenizer Tokenizer::from_bytes(const std::string& bytes, const std::string& name) {
  return Tokenizer(std::make_unique<Impl>(bytes, name));
}

Tokenizer::~Tokenizer() = default;
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;

const SpecialIds& Tokenizer::ids() const {
  return impl_->ids;
}

const std::string& Tokenizer::digest() const {
  return impl_->digest;
}

void Tokenizer::encode(std::string_view text, std::vector<int32_t>& ids) const {
  Encoder(*this).encode(text, ids);
}

std::vector<int32_t> Tokenizer::encode(std::string_view text) const {
  std::vector<int32_t> ids;
  encode(text, ids);
  return ids;
}

std::string Tokenizer::decode(std::span<const int32_t> ids) const {
  return impl_->decode({ids.begin(), ids.end()});
}

std::string Tokenizer::decode_visibly(std::span<const int32_t> ids) const {
  std::string text;
  std::vector<int> run;
  const auto end_run = [&] {
    text += impl_->decode(run);
    run.clear();
  };
  for (const int32_t id : ids) {
    if (id >= 0 && id < vocabulary_size() && impl_->model.IsControl(id)) {
      end_run();
      text += impl_->model.IdToPiece(id);
    } else {
      run.push_back(id);
    }
  }
  end_run();
  return text;
}

std::string Tokenizer::piece(int32_t id) const {
  if (id < 0 || id >= vocabulary_size()) {
    throw DataError("id {} is outside the vocabulary of {} of tokenizer {}", id, vocabulary_size(),
                    impl_->name);
  }
  return impl_->model.IdToPiece(id);
}

int64_t Tokenizer::num_text_bytes(int32_t id) const {
  const std::string text = piece(id);
  if (impl_->model.IsControl(id) || impl_->model.IsUnknown(id)) return 0;
  if (impl_->model.IsByte(id)) return 1;
  auto bytes = static_cast<int64_t>(text.size());
  for (std::size_t at = 0; (at = text.find(kSpaceMark, at)) != std::string::npos; at += kSpaceMark.size())
    bytes -= 2;
  return bytes;
}

/// Units seen and their ids, one after another in `ids`. Forgets everything when full: simple, and a text's
/// frequent units are back within its next page.
struct Encoder::Memory {
  struct Hash {
    using is_transparent = void;
    std::size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
  };
  struct Place {
    uint32_t first;
    uint32_t count;
  };
  std::unordered_map<std::string, Place, Hash, std::equal_to<>> units;
  std::vector<int32_t> ids;
  std::vector<int> encoded;  ///< of the unit at hand
};

Encoder::Encoder(const Tokenizer& tokenizer)
    : tokenizer_(tokenizer.impl_.get()), memory_(std::make_unique<Memory>()) {}
Encoder::~Encoder() = default;
Encoder::Encoder(Encoder&&) noexcept = default;
Encoder& Encoder::operator=(Encoder&&) noexcept = default;

void Encoder::encode(std::string_view text, std::vector<int32_t>& ids) {
  const std::size_t invalid = find_invalid_utf8(text);
  if (invalid != std::string_view::npos) throw DataError("invalid UTF-8 at byte {} of the text", invalid);
  std::size_t begin = 0;
  constexpr char32_t none = std::numeric_limits<char32_t>::max();
  char32_t previous = none;
  for (std::size_t at = 0; at < text.size();) {
    const char32_t next = utf8_decode(text, at);
    const bool is_mark = next == 0x2581;
    const bool joined = previous != none && !is_mark && tokenizer_->adjacency.contains(previous, next);
    if (!joined || at - begin >= kMaxUnitBytes) {
      encode_unit(text.substr(begin, at - begin), ids);
      begin = at;
    }
    previous = next;
    at += utf8_length(text[at]);
    if (is_mark) {
      for (const char byte : kSpaceMark)
        ids.push_back(tokenizer_->byte_ids[static_cast<unsigned char>(byte)]);
      begin = at;
      previous = none;
    }
  }
  encode_unit(text.substr(begin), ids);
}

void Encoder::encode_unit(std::string_view unit, std::vector<int32_t>& ids) {
  if (unit.empty()) return;
  Memory& memory = *memory_;
  const auto known = memory.units.find(unit);
  if (known != memory.units.end()) {
    const int32_t* first = memory.ids.data() + known->second.first;
    ids.insert(ids.end(), first, first + known->second.count);
    return;
  }
  const auto status = tokenizer_->model.Encode(unit, &memory.encoded);
  if (!status.ok()) throw DataError("tokenizer {}: cannot encode: {}", tokenizer_->name, status.ToString());
  ids.insert(ids.end(), memory.encoded.begin(), memory.encoded.end());
  if (unit.size() > kMaxRememberedBytes) return;
  if (memory.units.size() >= kMaxRememberedUnits) {
    memory.units.clear();
    memory.ids.clear();
  }
  const auto first = static_cast<uint32_t>(memory.ids.size());
  memory.ids.insert(memory.ids.end(), memory.encoded.begin(), memory.encoded.end());
  memory.units.emplace(unit, Memory::Place{first, static_cast<uint32_t>(memory.encoded.size())});
}

}  // namespace red::data
