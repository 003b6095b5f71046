#include "data/token_build.hpp"

#include <algorithm>
#include <cmath>
#include <optional>

#include "base/error.hpp"
#include "data/keyed_permutation.hpp"
#include "data/ordered_pipeline.hpp"
#include "data/piece_parser.hpp"
#include "data/token_file_writer.hpp"

namespace red::data {
namespace {

constexpr int64_t kBytesUnderWay = 64 << 20;
constexpr int64_t kCopyTokens = 1 << 16;

/// What a worker makes of a piece.
struct EncodedPiece {
  std::vector<int32_t> ids;
  std::optional<BadLine> bad;
  int64_t text_bytes = 0;
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

/// First pass: every document, in order of arrival.
void encode_corpus(const Tokenizer& tokenizer, const TokenBuildOptions& options, TokenFileWriter& writer,
                   TokenBuildSummary& summary, const TokenBuildProgress& progress) {
  CorpusReader reader(options.corpus);
  BadLines bad_lines(options.max_bad_lines);
  std::mutex long_lines;
  std::vector<PieceParser> parsers;
  std::vector<Encoder> encoders;
  for (int i = 0; i < options.workers; ++i) {
    parsers.emplace_back(options.corpus.field, long_lines);
    encoders.emplace_back(tokenizer);
  }
  bool open = false;  // a document of several pieces, some of them written
  const int32_t eod = tokenizer.ids().eod;
  OrderedPipeline<RawPiece, EncodedPiece> pipeline(
      options.workers, kBytesUnderWay,
      {.produce = [&] { return reader.next(); },
       .weight = [](const RawPiece& piece) { return static_cast<int64_t>(piece.bytes.size()) + 64; },
       .process =
           [&](int worker, RawPiece& piece) {
             EncodedPiece out;
             out.ends_document = piece.ends_document;
             BadLine bad;
             const auto text = parsers[worker].parse(piece, bad);
             if (!text) {
               out.bad = std::move(bad);
               return out;
             }
             out.text_bytes = static_cast<int64_t>(text->size());
             encoders[worker].encode(*text, out.ids);
             return out;
           },
       .consume =
           [&](EncodedPiece&& piece) {
             if (piece.bad) {
               bad_lines.add(*piece.bad);
               return;
             }
             open = open || !piece.ids.empty();
             writer.append(piece.ids);
             summary.text_bytes += piece.text_bytes;
             if (piece.ends_document && open) {  // an empty text is no document
               writer.append({&eod, 1});
               writer.end_document();
               open = false;
             }
             if (progress)
               progress(reader.num_file_bytes_read(), reader.num_file_bytes(), writer.num_tokens());
           }});
  pipeline.run();
  summary.bad_lines = bad_lines.count();
}

bool is_held_out(const TokenBuildOptions& options, int64_t document) {
  const PhiloxBlock bits = philox(hash_name("data.held_out", options.seed), static_cast<uint64_t>(document));
  return static_cast<double>(bits[0]) * 0x1.0p-32 < options.held_out;
}

double entropy(const std::vector<int64_t>& counts) {
  int64_t total = 0;
  for (const int64_t count : counts) total += count;
  double nats = 0.0;
  for (const int64_t count : counts) {
    if (count == 0) continue;
    const double p = static_cast<double>(count) / static_cast<double>(total);
    nats -= p * std::log(p);
  }
  return nats;
}

/// Second pass: documents in their final order, to the training or the held-out files.
void deal_documents(const Tokenizer& tokenizer, const TokenBuildOptions& options, const TokenFile& all,
                    TokenBuildSummary& summary) {
  const TokenType type = token_type_for(tokenizer.vocabulary_size());
  TokenFileWriter training(training_prefix(options.prefix), type);
  std::optional<TokenFileWriter> held_out;
  if (options.held_out > 0.0) held_out.emplace(held_out_prefix(options.prefix), type);
  const KeyedPermutation order(static_cast<uint64_t>(all.num_documents()),
                               hash_name("data.shuffle", options.seed), 0);
  std::vector<int64_t> counts(tokenizer.vocabulary_size(), 0);
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < all.num_documents(); ++i) {
    const auto document = options.shuffle ? static_cast<int64_t>(order(static_cast<uint64_t>(i))) : i;
    const bool out = held_out && is_held_out(options, document);
    TokenFileWriter& writer = out ? *held_out : training;
    const int64_t end = all.document_begin(document + 1);
    for (int64_t begin = all.document_begin(document); begin < end; begin += kCopyTokens) {
      ids.resize(std::min(kCopyTokens, end - begin));
      all.read(begin, ids);
      writer.append(ids);
      if (!out) {
        for (const int32_t id : ids) ++counts[id];
      }
    }
    writer.end_document();
  }
  if (training.num_documents() == 0)
    throw DataError("all documents were held out: give a smaller --held-out");
  if (held_out && held_out->num_documents() == 0) {
    throw DataError("no document was held out of {}: give a larger --held-out, or more documents",
                    all.num_documents());
  }
  if (held_out) held_out->finish();
  training.finish();
  summary.documents = training.num_documents();
  summary.tokens = training.num_tokens();
  summary.held_out_documents = held_out ? held_out->num_documents() : 0;
  summary.held_out_tokens = held_out ? held_out->num_tokens() : 0;
  summary.unigram_entropy = entropy(counts);
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
  TokenBuildSummary summary;
  const TemporaryTokens temporary(with_suffix(options.prefix, ".arrival"));
  {
    TokenFileWriter writer(temporary.prefix(), token_type_for(tokenizer.vocabulary_size()));
    encode_corpus(tokenizer, options, writer, summary, progress);
    if (writer.num_documents() == 0)
      throw DataError("the input holds no document: check the files and --field");
    writer.finish();
  }
  deal_documents(tokenizer, options, TokenFile(temporary.prefix()), summary);
  return summary;
}

}  // namespace red::data
