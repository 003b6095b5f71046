#include "data/token_build.hpp"

#include <algorithm>
#include <cmath>
#include <optional>

#include "base/error.hpp"
#include "base/log.hpp"
#include "base/philox.hpp"
#include "data/keyed_permutation.hpp"
#include "data/ordered_pipeline.hpp"
#include "data/piece_parser.hpp"
#include "data/token_file_writer.hpp"

namespace red::data {
namespace {

// A byte of text may become a token of four bytes, and the parser of a long line needs ten bytes for one:
// this and kMaxLineBytes keep the whole under 1 GiB.
constexpr int64_t kBytesUnderWay = 16 << 20;
constexpr std::size_t kBatchBytes = 1 << 16;  ///< short lines go to a worker together
constexpr int64_t kCopyTokens = 1 << 16;
constexpr int64_t kDocumentsPerPageDrop = 1024;

using Batch = std::vector<RawPiece>;

/// What a worker makes of a piece.
struct EncodedPiece {
  std::vector<int32_t> ids;
  std::size_t num_inputs = 0;  ///< of a pair: ids of its inputs, which come first
  std::optional<BadLine> bad;
  bool ends_document = true;
};

/// Token files that are gone when this object is.
class TemporaryTokens {
 public:
  explicit TemporaryTokens(std::filesystem::path prefix) : prefix_(std::move(prefix)) {}
  ~TemporaryTokens() {
    std::error_code ignored;
    for (const char* suffix : {".bin", ".idx"})
      std::filesystem::remove(with_suffix(prefix_, suffix), ignored);
  }
  TemporaryTokens(const TemporaryTokens&) = delete;
  TemporaryTokens& operator=(const TemporaryTokens&) = delete;
  const std::filesystem::path& prefix() const { return prefix_; }

 private:
  std::filesystem::path prefix_;
};

/// A worker's own tools.
class Worker {
 public:
  /// `targets_field` empty: no pairs.
  Worker(PieceParser parser, Encoder encoder, std::string targets_field)
      : parser_(std::move(parser)), encoder_(std::move(encoder)), targets_field_(std::move(targets_field)) {}

  std::vector<EncodedPiece> encode(Batch& batch) {
    std::vector<EncodedPiece> out(batch.size());
    for (std::size_t i = 0; i < batch.size(); ++i) {
      out[i].ends_document = batch[i].ends_document;
      BadLine bad;
      if (!encode(batch[i], out[i], bad)) out[i].bad = std::move(bad);
      batch[i].bytes = {};
    }
    return out;
  }

 private:
  bool encode(RawPiece& piece, EncodedPiece& out, BadLine& bad) {
    if (targets_field_.empty()) {
      const auto text = parser_.parse(piece, bad);
      if (text) encoder_.encode(*text, out.ids);
      return text.has_value();
    }
    const auto pair = parser_.parse_pair(piece, targets_field_, bad);
    if (!pair) return false;
    encoder_.encode(pair->inputs, out.ids);
    out.num_inputs = out.ids.size();
    encoder_.encode(pair->targets, out.ids);
    return true;
  }

  PieceParser parser_;
  Encoder encoder_;
  std::string targets_field_;
};

std::optional<Batch> next_batch(CorpusReader& reader) {
  Batch batch;
  for (std::size_t bytes = 0; bytes < kBatchBytes;) {
    std::optional<RawPiece> piece = reader.next();
    if (!piece) break;
    bytes += piece->bytes.size() + 1;
    batch.push_back(std::move(*piece));
  }
  if (batch.empty()) return std::nullopt;
  return batch;
}

void write_pair(std::span<const int32_t> ids, std::size_t num_inputs, int32_t eod, TokenFileWriter& writer) {
  writer.append(ids.first(num_inputs));
  writer.end_sequence();
  writer.append(ids.subspan(num_inputs));
  writer.append({&eod, 1});
  writer.end_document();
}

/// First pass: every document, in order of arrival. Returns the number of bad lines.
int64_t encode_corpus(const Tokenizer& tokenizer, const TokenBuildOptions& options, TokenFileWriter& writer,
                      const TokenBuildProgress& progress) {
  CorpusReader reader(options.corpus);
  BadLines bad_lines(options.max_bad_lines);
  std::mutex long_lines;
  std::vector<Worker> workers;
  workers.reserve(static_cast<std::size_t>(options.workers));
  for (int i = 0; i < options.workers; ++i) {
    workers.emplace_back(PieceParser(options.corpus.field, long_lines), Encoder(tokenizer),
                         options.targets_field);
  }
  const int32_t eod = tokenizer.ids().eod;
  bool open = false;  // a document of several pieces, some of them written
  const bool pairs = !options.targets_field.empty();
  const auto write = [&](const EncodedPiece& piece) {
    if (piece.bad) return bad_lines.add(*piece.bad);
    if (pairs) return write_pair(piece.ids, piece.num_inputs, eod, writer);
    open = open || !piece.ids.empty();
    writer.append(piece.ids);
    if (!piece.ends_document || !open) return;  // an empty text is no document
    writer.append({&eod, 1});
    writer.end_document();
    open = false;
  };
  OrderedPipeline<Batch, std::vector<EncodedPiece>> pipeline(
      options.workers, kBytesUnderWay,
      {.produce = [&] { return next_batch(reader); },
       .weight =
           [](const Batch& batch) {
             int64_t bytes = 0;
             for (const RawPiece& piece : batch) bytes += static_cast<int64_t>(piece.bytes.size());
             return bytes;
           },
       .process = [&](int worker,
                      Batch& batch) { return workers[static_cast<std::size_t>(worker)].encode(batch); },
       .consume =
           [&](std::vector<EncodedPiece>&& pieces) {
             for (const EncodedPiece& piece : pieces) write(piece);
             if (!progress) return;
             progress(
                 {"encoding", reader.num_file_bytes_read(), reader.num_file_bytes(), writer.num_tokens()});
           }});
  pipeline.run();
  return bad_lines.count();
}

/// One of the two outputs: its files and what is counted for its sidecar.
class Output {
 public:
  Output(const std::filesystem::path& prefix, const Tokenizer& tokenizer)
      : prefix_(prefix),
        tokenizer_(tokenizer),
        writer_(prefix, token_type_for(tokenizer.vocabulary_size())),
        counts_(static_cast<std::size_t>(tokenizer.vocabulary_size())) {}

  /// Every document of `from` has as many sequences.
  void copy_document(const TokenFile& from, int64_t document) {
    const int64_t sequences = from.num_sequences_of(document), first = sequences * document;
    for (int64_t i = 0; i < sequences; ++i) {
      if (i > 0) writer_.end_sequence();
      copy_tokens(from, from.sequence_begin(first + i), from.sequence_begin(first + i + 1));
    }
    writer_.end_document();
  }

  void complete() { writer_.complete(); }
  void remove_old_index() const { writer_.remove_old_index(); }

  TokenStatistics publish(const TokenBuildOptions& options, int64_t bad_lines) {
    TokenSidecar sidecar;
    sidecar.statistics = {writer_.num_documents(), writer_.num_tokens(), 0, unigram_entropy(counts_)};
    for (std::size_t id = 0; id < counts_.size(); ++id) {
      sidecar.statistics.text_bytes += counts_[id] * tokenizer_.num_text_bytes(static_cast<int32_t>(id));
    }
    sidecar.tokenizer_sha256 = tokenizer_.digest();
    sidecar.vocabulary_size = tokenizer_.vocabulary_size();
    for (const auto& input : options.corpus.inputs) sidecar.inputs.push_back(input.string());
    sidecar.field = options.corpus.field;
    sidecar.targets_field = options.targets_field;
    sidecar.seed = options.seed;
    sidecar.shuffled = options.shuffle;
    sidecar.held_out = options.held_out;
    sidecar.bad_lines = bad_lines;
    writer_.publish([&] { write_token_sidecar(prefix_, sidecar); });
    return sidecar.statistics;
  }
  int64_t num_tokens() const { return writer_.num_tokens(); }

 private:
  void copy_tokens(const TokenFile& from, int64_t begin, int64_t end) {
    for (; begin < end; begin += kCopyTokens) {
      ids_.resize(static_cast<std::size_t>(std::min(kCopyTokens, end - begin)));
      from.read(begin, ids_);
      writer_.append(ids_);
      for (const int32_t id : ids_) ++counts_[static_cast<std::size_t>(id)];
    }
  }

  std::filesystem::path prefix_;
  const Tokenizer& tokenizer_;
  TokenFileWriter writer_;
  std::vector<int64_t> counts_;
  std::vector<int32_t> ids_;
};

int64_t num_held_out(const TokenBuildOptions& options, int64_t documents) {
  if (options.held_out <= 0.0) return 0;
  if (documents < 2)
    throw DataError("{} document cannot be split: leave out --held-out, or give more", documents);
  const auto share = static_cast<int64_t>(std::llround(options.held_out * static_cast<double>(documents)));
  if (share >= documents) {
    throw DataError("all {} documents would be held out: give a smaller --held-out than {}", documents,
                    options.held_out);
  }
  return std::max<int64_t>(1, share);
}

/// Second pass: documents in their final order, to the training or the held-out files. Which are held out
/// does not depend on the order: those that a lottery of its own puts last.
TokenBuildSummary deal_documents(const Tokenizer& tokenizer, const TokenBuildOptions& options,
                                 const TokenFile& all, int64_t bad_lines,
                                 const TokenBuildProgress& progress) {
  const int64_t documents = all.num_documents();
  const int64_t held_out_documents = num_held_out(options, documents);
  const auto size = static_cast<uint64_t>(documents);
  const KeyedPermutation order(size, hash_name("data.shuffle", options.seed), 0);
  const KeyedPermutation lottery(size, hash_name("data.held_out", options.seed), 0);
  Output training(training_prefix(options.prefix), tokenizer);
  std::optional<Output> held_out;
  if (held_out_documents > 0) held_out.emplace(held_out_prefix(options.prefix), tokenizer);
  for (uint64_t i = 0; i < size; ++i) {
    const uint64_t document = options.shuffle ? order(i) : i;
    const bool out = held_out && lottery(document) >= size - static_cast<uint64_t>(held_out_documents);
    (out ? *held_out : training).copy_document(all, static_cast<int64_t>(document));
    if (i % kDocumentsPerPageDrop != 0) continue;
    all.drop_index_pages();
    if (progress)
      progress({"writing", i, size, training.num_tokens() + (held_out ? held_out->num_tokens() : 0)});
  }
  training.complete();
  if (held_out) held_out->complete();
  // Older training files may hold what is held out now: they go first.
  training.remove_old_index();
  TokenBuildSummary summary;
  if (held_out) summary.held_out = held_out->publish(options, bad_lines);
  summary.training = training.publish(options, bad_lines);
  summary.bad_lines = bad_lines;
  return summary;
}

}  // namespace

std::filesystem::path training_prefix(const std::filesystem::path& prefix) {
  return with_suffix(prefix, "_text_document");
}

std::filesystem::path held_out_prefix(const std::filesystem::path& prefix) {
  return with_suffix(prefix, "_heldout_text_document");
}

TokenBuildSummary build_token_files(const Tokenizer& tokenizer, const TokenBuildOptions& options,
                                    const TokenBuildProgress& progress) {
  const TemporaryTokens temporary(with_suffix(options.prefix, ".arrival"));
  int64_t bad_lines = 0;
  {
    TokenFileWriter writer(temporary.prefix(), token_type_for(tokenizer.vocabulary_size()));
    bad_lines = encode_corpus(tokenizer, options, writer, progress);
    if (writer.num_documents() == 0) {
      throw DataError("the input holds no document: is it empty, or are all its texts?");
    }
    writer.finish();
  }
  const auto summary = deal_documents(tokenizer, options, TokenFile(temporary.prefix()), bad_lines, progress);
  const auto old_index = with_suffix(held_out_prefix(options.prefix), ".idx");
  if (summary.held_out.documents == 0 && std::filesystem::exists(old_index)) {
    log::warning("{} is of an earlier build; its documents may be in the training files now",
                 old_index.string());
  }
  return summary;
}

}  // namespace red::data
