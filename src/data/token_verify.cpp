#include "data/token_verify.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/error.hpp"
#include "data/token_sidecar.hpp"

namespace red::data {
namespace {

constexpr int64_t kBlockTokens = 1 << 16;

/// Looks at a file's tokens in order, block by block.
class Inspection {
 public:
  /// `vocabulary_size` 0: not known.
  Inspection(const TokenFile& file, const SpecialIds* ids, int64_t vocabulary_size)
      : file_(file), ids_(ids), counts_(static_cast<std::size_t>(vocabulary_size)) {
    find_end();
  }

  void look_at(int64_t first, std::span<const int32_t> tokens) {
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      const int64_t position = first + static_cast<int64_t>(i);
      const int32_t id = tokens[i];
      largest_ = std::max(largest_, id);
      if (id < 0) fail(position, fmt::format("is {}, no id", id));
      if (!counts_.empty()) count(position, id);
      if (ids_ != nullptr) check_eod(position, id);
      while (position + 1 == end_) next_document();
    }
  }
  int32_t largest_id() const { return largest_; }
  const std::vector<int64_t>& counts() const { return counts_; }

 private:
  void count(int64_t position, int32_t id) {
    const auto index = static_cast<std::size_t>(id);
    if (index >= counts_.size()) {
      fail(position, fmt::format("is {}, outside the vocabulary of {}", id, counts_.size()));
    }
    ++counts_[index];
  }
  void check_eod(int64_t position, int32_t id) const {
    const bool last = position + 1 == end_;
    if (last == (id == ids_->eod)) return;
    fail(position, last ? fmt::format("is {}, but the last of a document must be [EOD] ({})", id, ids_->eod)
                        : fmt::format("is [EOD] ({}), but its document goes on", id));
  }
  [[noreturn]] void fail(int64_t position, const std::string& what) const {
    throw DataError("{}: token {} (in document {}) {}", file_.bin_path().string(), position, document_, what);
  }
  void next_document() {
    ++document_;
    find_end();
  }
  void find_end() {
    end_ = document_ < file_.num_documents() ? file_.document_begin(document_ + 1) : -1;
    if (ids_ != nullptr && document_ < file_.num_documents() && end_ == file_.document_begin(document_)) {
      throw DataError("{}: document {} is empty, without even [EOD]", file_.bin_path().string(), document_);
    }
  }

  const TokenFile& file_;
  const SpecialIds* ids_;
  std::vector<int64_t> counts_;     ///< of each id; empty without a vocabulary
  int64_t document_ = 0, end_ = 0;  ///< the document at hand and where it ends
  int32_t largest_ = -1;
};

/// What can be compared before the tokens are read.
void compare_counts(const TokenFile& file, const TokenSidecar& sidecar) {
  if (!sidecar.targets_field.empty() && !file.holds_pairs())
    throw DataError("{}.json: tells of pairs, but not every document of the .idx has two sequences",
                    file.prefix().string());
  const TokenStatistics& told = sidecar.statistics;
  if (told.documents == file.num_documents() && told.tokens == file.num_tokens()) return;
  throw DataError(
      "{}.json: tells of {} documents and {} tokens, the files hold {} and {}; they do not belong together",
      file.prefix().string(), told.documents, told.tokens, file.num_documents(), file.num_tokens());
}

/// The entropy stands for the ids' counts: a token that turned into another one shows in it.
void compare_entropy(const TokenFile& file, const TokenSidecar& sidecar, const std::vector<int64_t>& counts) {
  constexpr double tolerance = 1e-12;  // the same sum in the same order, through a decimal number
  const double told = sidecar.statistics.unigram_entropy, found = unigram_entropy(counts);
  if (std::abs(told - found) <= tolerance * std::max(1.0, found)) return;
  throw DataError(
      "{}: the unigram entropy of its tokens is {}, {}.json tells of {}; tokens were changed, or the files "
      "do "
      "not belong together",
      file.bin_path().string(), found, file.prefix().string(), told);
}

}  // namespace

TokenFileReport verify_token_file(const std::filesystem::path& prefix, const SpecialIds* ids) {
  const TokenFile file(prefix);
  const auto sidecar = read_token_sidecar(prefix);
  if (sidecar) compare_counts(file, *sidecar);
  if (ids != nullptr) check_tokenizer(prefix, ids->tokenizer_sha256);
  int64_t vocabulary_size = sidecar ? sidecar->vocabulary_size : 0;
  if (ids != nullptr) vocabulary_size = ids->vocabulary_size;
  Inspection inspection(file, ids, vocabulary_size);
  std::vector<int32_t> tokens;
  for (int64_t first = 0; first < file.num_tokens(); first += kBlockTokens) {
    tokens.resize(static_cast<std::size_t>(std::min(kBlockTokens, file.num_tokens() - first)));
    file.read(first, tokens);
    inspection.look_at(first, tokens);
  }
  if (sidecar) compare_entropy(file, *sidecar, inspection.counts());
  return {file.num_documents(),    file.num_tokens(),   file.type(),
          inspection.largest_id(), sidecar.has_value(), file.holds_pairs()};
}

}  // namespace red::data
