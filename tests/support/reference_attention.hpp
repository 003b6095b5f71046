// Attention in float64, from its definition: whole rows of scores, no tiles. And the cases it is tested with.
#pragma once

#include <string>
#include <vector>

#include "ops/attention.hpp"
#include "support/backend.hpp"
#include "support/finite_difference.hpp"

namespace red::test {

/// Everything attention takes. Empty vectors of the mask: not used.
struct AttentionCase {
  std::string name;
  int64_t heads = 1;
  std::vector<int32_t> q_offsets, k_offsets;
  Matrix q, keys, values, d_o;
  bool causal = false;
  std::vector<int32_t> prefix, q_documents, k_documents;

  /// i and j counted within sequence s
  bool visible(int64_t s, int64_t i, int64_t j) const {
    if (!q_documents.empty() && q_documents[q_offsets[s] + i] != k_documents[k_offsets[s] + j]) return false;
    return !causal || j <= i || (!prefix.empty() && i < prefix[s] && j < prefix[s]);
  }
};

/// What ops take of a case besides its matrices, in device memory.
class AttentionOnDevice {
 public:
  explicit AttentionOnDevice(const AttentionCase& c)
      : num_sequences_(static_cast<int64_t>(c.q_offsets.size()) - 1),
        heads_(c.heads),
        causal_(c.causal),
        q_offsets_(c.q_offsets),
        k_offsets_(c.k_offsets),
        prefix_(c.prefix),
        q_documents_(c.q_documents),
        k_documents_(c.k_documents) {}

  ops::AttentionLayout layout() const {
    return {num_sequences_, q_offsets_.data(), k_offsets_.data(), heads_};
  }
  ops::AttentionMask mask() const {
    return {causal_, prefix_.data(), q_documents_.data(), k_documents_.data()};
  }

 private:
  int64_t num_sequences_, heads_;
  bool causal_;
  DeviceArray<int32_t> q_offsets_, k_offsets_, prefix_, q_documents_, k_documents_;
};

struct ReferenceAttention {
  Matrix o, lse, delta, dq, dk, dv;
};

/// (rows from first_row on, keys) of one sequence and head.
inline Matrix reference_probabilities(const AttentionCase& c, int64_t s, int64_t head, int64_t first_row,
                                      std::vector<double>* lse = nullptr) {
  const int64_t width = c.q.cols / c.heads, q0 = c.q_offsets[s], k0 = c.k_offsets[s];
  const int64_t rows = c.q_offsets[s + 1] - q0 - first_row, keys = c.k_offsets[s + 1] - k0;
  Matrix p(rows, keys);
  for (int64_t i = 0; i < rows; ++i) {
    std::vector<double> scores(keys, -INFINITY);
    double max = -INFINITY, sum = 0.0;
    for (int64_t j = 0; j < keys; ++j) {
      if (!c.visible(s, first_row + i, j)) continue;
      double dot = 0.0;
      for (int64_t x = head * width; x < (head + 1) * width; ++x) {
        dot += c.q(q0 + first_row + i, x) * c.keys(k0 + j, x);
      }
      scores[j] = dot / std::sqrt(static_cast<double>(width));
      max = std::max(max, scores[j]);
    }
    for (const double x : scores) sum += x == -INFINITY ? 0.0 : std::exp(x - max);
    for (int64_t j = 0; j < keys; ++j)
      p(i, j) = scores[j] == -INFINITY ? 0.0 : std::exp(scores[j] - max) / sum;
    if (lse != nullptr) lse->push_back(sum == 0.0 ? -INFINITY : max + std::log(sum));
  }
  return p;
}

inline ReferenceAttention reference_attention(const AttentionCase& c) {
  const Matrix queries(c.q.rows, c.q.cols), keys(c.keys.rows, c.keys.cols), statistics(c.heads, c.q.rows);
  ReferenceAttention r{queries, statistics, statistics, queries, keys, keys};
  const int64_t width = c.q.cols / c.heads;
  const double scale = 1.0 / std::sqrt(static_cast<double>(width));
  for (int64_t s = 0; s + 1 < static_cast<int64_t>(c.q_offsets.size()); ++s) {
    for (int64_t h = 0; h < c.heads; ++h) {
      std::vector<double> lse;
      const Matrix p = reference_probabilities(c, s, h, 0, &lse);
      for (int64_t i = 0; i < p.rows; ++i) {
        const int64_t t = c.q_offsets[s] + i;
        r.lse(h, t) = lse[i];
        for (int64_t x = h * width; x < (h + 1) * width; ++x) {
          for (int64_t j = 0; j < p.cols; ++j) r.o(t, x) += p(i, j) * c.values(c.k_offsets[s] + j, x);
          r.delta(h, t) += r.o(t, x) * c.d_o(t, x);
        }
        for (int64_t j = 0; j < p.cols; ++j) {
          const int64_t u = c.k_offsets[s] + j;
          double dp = 0.0;
          for (int64_t x = h * width; x < (h + 1) * width; ++x) dp += c.d_o(t, x) * c.values(u, x);
          const double ds = p(i, j) * (dp - r.delta(h, t)) * scale;
          for (int64_t x = h * width; x < (h + 1) * width; ++x) {
            r.dv(u, x) += p(i, j) * c.d_o(t, x);
            r.dk(u, x) += ds * c.q(t, x);
            r.dq(t, x) += ds * c.keys(u, x);
          }
        }
      }
    }
  }
  return r;
}

inline std::vector<int32_t> offsets_of(const std::vector<int64_t>& lengths) {
  std::vector<int32_t> offsets = {0};
  for (const int64_t n : lengths) offsets.push_back(offsets.back() + static_cast<int32_t>(n));
  return offsets;
}

/// Document ids of sequences of these lengths: documents of `size` tokens, ids rising by `step` from 0.
inline std::vector<int32_t> documents_of(const std::vector<int64_t>& lengths, int64_t size,
                                         int32_t step = 1) {
  std::vector<int32_t> ids;
  for (const int64_t n : lengths) {
    for (int64_t i = 0; i < n; ++i) ids.push_back(static_cast<int32_t>(i / size) * step);
  }
  return ids;
}

inline AttentionCase random_case(const std::string& name, const std::vector<int64_t>& q_lengths,
                                 const std::vector<int64_t>& k_lengths, int64_t heads, int64_t head_dim,
                                 uint64_t seed) {
  AttentionCase c;
  c.name = name;
  c.heads = heads;
  c.q_offsets = offsets_of(q_lengths);
  c.k_offsets = offsets_of(k_lengths);
  c.q = random_matrix(c.q_offsets.back(), heads * head_dim, seed * 4);
  c.keys = random_matrix(c.k_offsets.back(), heads * head_dim, seed * 4 + 1);
  c.values = random_matrix(c.k_offsets.back(), heads * head_dim, seed * 4 + 2);
  c.d_o = random_matrix(c.q_offsets.back(), heads * head_dim, seed * 4 + 3);
  return c;
}

/// The same with values that bf16 holds.
inline AttentionCase as_bf16(AttentionCase c) {
  for (Matrix* m : {&c.q, &c.keys, &c.values, &c.d_o}) *m = as_bf16(*m);
  return c;
}

/// A few tokens, for finite differences: "plain", "documents" or "causal documents".
inline AttentionCase small_case(const std::string& name) {
  const std::vector<int64_t> q_lengths = {5, 3}, k_lengths = {4, 6};
  AttentionCase c = random_case(name, q_lengths, k_lengths, 2, 4, 90);
  c.causal = name == "causal documents";
  if (name != "plain") {
    c.q_documents = documents_of(q_lengths, 2);
    c.k_documents = documents_of(k_lengths, 3);
  }
  return c;
}

/// Odd sizes, several tiles of queries and keys, every mask, sequences without queries or keys.
inline std::vector<AttentionCase> attention_cases() {
  std::vector<AttentionCase> cases;
  const auto add = [&](const std::string& name, const std::vector<int64_t>& q, const std::vector<int64_t>& k,
                       int64_t heads, int64_t head_dim) -> AttentionCase& {
    return cases.emplace_back(random_case(name, q, k, heads, head_dim, cases.size() + 1));
  };
  add("one token", {1}, {1}, 1, 2);
  add("full, ragged", {37, 1, 150}, {37, 1, 150}, 2, 16);
  add("full, long", {401}, {401}, 1, 128);
  add("cross, other lengths", {33, 0, 70, 5}, {140, 9, 0, 300}, 3, 40);
  add("full, several blocks of queries", {1100}, {60}, 1, 8);
  add("causal, long", {700}, {700}, 1, 32).causal = true;
  add("causal, ragged", {1, 64, 131}, {1, 64, 131}, 2, 128).causal = true;
  add("causal, fewer keys", {200}, {90}, 1, 16).causal = true;
  add("causal, more keys", {50}, {190}, 1, 6).causal = true;
  AttentionCase& prefix = add("prefix", {150, 40, 300}, {150, 40, 300}, 2, 16);
  prefix.causal = true;
  prefix.prefix = {71, 0, 400};
  AttentionCase& documents = add("documents", {300, 45}, {300, 45}, 2, 16);
  documents.q_documents = documents_of({300, 45}, 53);
  documents.k_documents = documents_of({300, 45}, 53);
  AttentionCase& causal = add("causal documents", {500}, {500}, 1, 40);
  causal.causal = true;
  causal.q_documents = causal.k_documents = documents_of({500}, 190);
  AttentionCase& both = add("prefix and documents", {260}, {260}, 1, 16);
  both.causal = true;
  both.prefix = {130};
  both.q_documents = both.k_documents = documents_of({260}, 100);
  AttentionCase& wide = add("causal documents, heads of 64", {150, 70}, {150, 70}, 2, 64);
  wide.causal = true;
  wide.q_documents = wide.k_documents = documents_of({150, 70}, 90);
  // Odd query documents have no keys at all, and the last key documents no queries.
  AttentionCase& gaps = add("cross documents with gaps", {210}, {350}, 2, 16);
  gaps.q_documents = documents_of({210}, 30);
  gaps.k_documents = documents_of({350}, 60, 2);
  add("causal, heads of 200", {75, 40}, {75, 40}, 1, 200).causal = true;
  return cases;
}

}  // namespace red::test
