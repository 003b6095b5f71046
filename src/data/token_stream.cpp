#include "data/token_stream.hpp"

#include <algorithm>
#include <utility>

#include "base/check.hpp"
#include "base/error.hpp"

namespace red::data {

TokenStream::TokenStream(TokenFile file, const SpecialIds& ids, MissingEod missing_eod)
    : file_(std::move(file)), ids_(ids) {
  adds_eod_ = find_whether_to_add(missing_eod);
}

bool TokenStream::ends_with_eod(int64_t document) const {
  const int64_t end = file_.document_begin(document + 1);
  if (end == file_.document_begin(document)) return false;
  int32_t last = 0;
  file_.read(end - 1, std::span(&last, 1));
  return last == ids_.eod;
}

bool TokenStream::find_whether_to_add(MissingEod missing_eod) const {
  const int64_t documents = file_.num_documents();
  const int64_t looked_at = std::min<int64_t>(documents, 4096);
  int64_t with = 0, first_without = -1;
  for (int64_t i = 0; i < looked_at; ++i) {
    const int64_t document = i * (documents / looked_at);
    if (ends_with_eod(document)) {
      ++with;
    } else if (first_without < 0) {
      first_without = document;
    }
  }
  if (with == looked_at) return false;
  const std::string name = file_.bin_path().string();
  if (with > 0) {
    throw DataError(
        "{}: {} of {} documents looked at end with [EOD] (id {}), document {} does not; build the file again",
        name, with, looked_at, ids_.eod, first_without);
  }
  if (missing_eod == MissingEod::refuse) {
    throw DataError(
        "{}: its documents do not end with [EOD] (id {}); build it with `redllm data build` or Megatron's "
        "--append-eod, "
        "or set data.missing_eod = add to have it added while reading",
        name, ids_.eod);
  }
  return true;
}

int64_t TokenStream::document_of(int64_t position) const {
  int64_t low = 0, high = file_.num_documents();
  while (high - low > 1) {
    const int64_t middle = low + (high - low) / 2;
    (begin(middle) <= position ? low : high) = middle;
  }
  return low;
}

void TokenStream::check_ids(int64_t first, std::span<const int32_t> tokens) const {
  const auto limit = static_cast<uint32_t>(ids_.vocabulary_size);
  const auto bad = std::find_if(tokens.begin(), tokens.end(),
                                [limit](int32_t id) { return static_cast<uint32_t>(id) >= limit; });
  if (bad == tokens.end()) return;
  const int64_t position = first + (bad - tokens.begin());
  throw DataError(
      "{}: token {} (in document {}) is {}, outside the vocabulary of {}; was it built with another "
      "tokenizer?",
      file_.bin_path().string(), position, file_.document_of(position), *bad, ids_.vocabulary_size);
}

void TokenStream::read(int64_t first, std::span<int32_t> out) const {
  if (out.empty()) return;
  adds_eod_ ? read_adding(first, out) : read_plain(first, out);
}

void TokenStream::read_plain(int64_t first, std::span<int32_t> out) const {
  file_.read(first, out);
  check_ids(first, out);
  const int64_t end = first + static_cast<int64_t>(out.size());
  for (int64_t document = document_of(first) + 1; document <= file_.num_documents(); ++document) {
    const int64_t ended = begin(document);
    if (ended > end) break;
    if (ended > first && out[static_cast<std::size_t>(ended - first) - 1] == ids_.eod) continue;
    throw DataError(
        "{}: document {} does not end with [EOD] (id {}), as others of the file do; build the file again",
        file_.bin_path().string(), document - 1, ids_.eod);
  }
}

void TokenStream::read_adding(int64_t first, std::span<int32_t> out) const {
  int64_t position = first;
  for (int64_t document = document_of(first); !out.empty(); ++document) {
    RED_CHECK(document < file_.num_documents(), "token {} of {}", position, num_tokens());
    const int64_t stored = begin(document + 1) - 1 - position;  // before the added [EOD]
    const auto count = static_cast<std::size_t>(std::min<int64_t>(stored, static_cast<int64_t>(out.size())));
    const std::span<int32_t> part = out.first(count);
    file_.read(position - document, part);
    check_ids(position - document, part);
    position += static_cast<int64_t>(count);
    out = out.subspan(count);
    if (out.empty()) break;
    if (ends_with_eod(document)) {
      throw DataError(
          "{}: document {} ends with [EOD] (id {}) of its own, others of the file do not; build the file "
          "again",
          file_.bin_path().string(), document, ids_.eod);
    }
    out.front() = ids_.eod;
    out = out.subspan(1);
    ++position;
  }
}

void TokenStream::read_documents(int64_t origin, int64_t first, std::span<int32_t> out) const {
  if (out.empty()) return;
  const int64_t base = document_of(origin);
  int64_t document = document_of(first), end = begin(document + 1), position = first;
  for (int32_t& id : out) {
    while (position >= end) end = begin(++document + 1);
    id = static_cast<int32_t>(document - base);
    ++position;
  }
}

}  // namespace red::data
