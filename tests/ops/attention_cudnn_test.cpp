// cuDNN's attention beside our own kernels on ragged sequences, each sequence by itself, forward and
// backward. For a machine with a GPU: nothing stands for cuDNN in the harness.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "ops/attention_library.hpp"
#include "support/compare.hpp"
#include "support/reference_attention.hpp"

namespace red::ops {
namespace {

using test::AttentionCase;
using test::Bf16Tensor;
using test::FloatTensor;
using test::Matrix;

// Of a sequence's norm: bf16 results of fp32 sums, and probabilities rounded to bf16 in either.
constexpr double kMostDisagreement = 2e-2;
constexpr test::Tolerance kLogSumExp = {.absolute = 1e-3, .relative = 1e-3};
constexpr int64_t kPadding = 8;  // rows begin at 16 bytes, as the library wants them

struct Results {
  explicit Results(const AttentionCase& c)
      : o(c.q.rows, c.q.cols, kPadding),
        dq(c.q.rows, c.q.cols, kPadding),
        dk(c.keys.rows, c.keys.cols, kPadding),
        dv(c.keys.rows, c.keys.cols, kPadding),
        lse(c.heads, c.q.rows) {}
  Bf16Tensor o, dq, dk, dv;
  FloatTensor lse;
};

/// A case on the device, with what the host knows of its lengths.
class Problem {
 public:
  explicit Problem(const AttentionCase& c)
      : where_(c),
        layout_(where_.layout()),
        mask_(where_.mask()),
        q_(c.q, kPadding),
        keys_(c.keys, kPadding),
        values_(c.values, kPadding),
        d_o_(c.d_o, kPadding),
        delta_(c.heads, c.q.rows) {
    for (std::size_t s = 0; s + 1 < c.q_offsets.size(); ++s) {
      const int64_t queries = c.q_offsets[s + 1] - c.q_offsets[s], keys = c.k_offsets[s + 1] - c.k_offsets[s];
      layout_.longest_q = std::max(layout_.longest_q, queries);
      layout_.longest_k = std::max(layout_.longest_k, keys);
      const int64_t shorter = std::min(queries, keys);
      layout_.shortest = s == 0 ? shorter : std::min(layout_.shortest, shorter);
    }
  }

  void by_our_kernels(Stream& stream, const Results& to) const {
    stream.use_attention(AttentionChoice::own);
    attention_forward(stream, to.o, to.lse, q_, keys_, values_, layout_, mask_);
    attention_delta(stream, delta_, d_o_, to.o, nullptr);
    attention_backward(stream, to.dq, to.dk, to.dv, d_o_, delta_, q_, keys_, values_, to.lse, layout_, mask_);
  }
  bool forward_by_library(Stream& stream, const Results& to) const {
    stream.use_attention(AttentionChoice::cudnn);
    return attention_forward_by_library(stream, to.o, to.lse, q_, keys_, values_, layout_, mask_);
  }
  /// From the result of `forward`.
  bool backward_by_library(Stream& stream, const Results& to, const Results& forward) const {
    stream.use_attention(AttentionChoice::cudnn);
    const Tensor o = forward.o;
    return attention_backward_by_library(stream, to.dq, to.dk, to.dv, d_o_, {&o, nullptr}, q_, keys_, values_,
                                         forward.lse, layout_, mask_);
  }

 private:
  test::AttentionOnDevice where_;
  AttentionLayout layout_;
  AttentionMask mask_;
  Bf16Tensor q_, keys_, values_, d_o_;
  FloatTensor delta_;
};

double norm_of(const Matrix& m, int64_t begin, int64_t end) {
  double squares = 0.0;
  for (int64_t i = begin; i < end; ++i) {
    for (int64_t j = 0; j < m.cols; ++j) squares += m(i, j) * m(i, j);
  }
  return std::sqrt(squares);
}

/// No sequence is further off than rounding, of its own norm or its share of all.
void expect_near(const char* what, const Bf16Tensor& theirs, const Bf16Tensor& ours,
                 const std::vector<int32_t>& offsets) {
  const Matrix expected = ours.read();
  Matrix errors = theirs.read();
  for (std::size_t i = 0; i < errors.values.size(); ++i) errors.values[i] -= expected.values[i];
  const double all = norm_of(expected, 0, expected.rows);
  for (std::size_t s = 0; s + 1 < offsets.size(); ++s) {
    const int64_t begin = offsets[s], end = offsets[s + 1];
    const double share =
        all * std::sqrt(static_cast<double>(end - begin) / static_cast<double>(expected.rows));
    const double error = norm_of(errors, begin, end) / std::max(norm_of(expected, begin, end), share);
    EXPECT_LE(error, kMostDisagreement) << what << " of sequence " << s;  // fails for NaN, too
  }
  EXPECT_TRUE(theirs.padding_untouched()) << what;
}

class AttentionCudnn : public testing::Test {
 protected:
  void SetUp() override {
    if (!has_attention_library()) GTEST_SKIP() << "this program is linked without cuDNN";
  }
  Stream stream_{1};
};

TEST_F(AttentionCudnn, RaggedSequencesAreThoseOfOurKernels) {
  const auto causal = [](AttentionCase c) {
    c.causal = true;
    return c;
  };
  const AttentionCase cases[] = {
      causal(test::random_case("causal, heads of 64", {1, 64, 131, 200}, {1, 64, 131, 200}, 3, 64, 1)),
      causal(test::random_case("causal, heads of 128", {700, 5, 129}, {700, 5, 129}, 2, 128, 2)),
      test::random_case("full, heads of 64", {37, 1, 150}, {37, 1, 150}, 2, 64, 3),
      test::random_case("cross, heads of 128", {33, 70, 5}, {140, 9, 300}, 3, 128, 4),
      causal(test::random_case("one sequence of one tile", {128}, {128}, 1, 64, 5))};
  for (const AttentionCase& given : cases) {
    SCOPED_TRACE(given.name);
    const AttentionCase c = as_bf16(given);
    const Problem problem(c);
    const Results ours(c), theirs(c);
    problem.by_our_kernels(stream_, ours);
    const int64_t passes = attention_library_passes();
    EXPECT_TRUE(problem.forward_by_library(stream_, theirs)) << attention_library_refusal();
    EXPECT_TRUE(problem.backward_by_library(stream_, theirs, ours)) << attention_library_refusal();
    EXPECT_GE(attention_library_passes(), passes + 2);
    expect_near("o", theirs.o, ours.o, c.q_offsets);
    EXPECT_TRUE(close(theirs.lse.read(), ours.lse.read(), kLogSumExp)) << "lse";
    expect_near("dq", theirs.dq, ours.dq, c.q_offsets);
    expect_near("dk", theirs.dk, ours.dk, c.k_offsets);
    expect_near("dv", theirs.dv, ours.dv, c.k_offsets);
  }
}

TEST_F(AttentionCudnn, WhatItDoesNotTakeIsLeftAlone) {
  AttentionCase c = as_bf16(test::random_case("prefix", {150, 40}, {150, 40}, 2, 64, 6));
  c.causal = true;
  c.prefix = {71, 0};
  const Problem problem(c);
  const Results ours(c), theirs(c);
  problem.by_our_kernels(stream_, ours);
  const std::vector<double> before = theirs.o.read().values, gradients = theirs.dq.read().values;
  const int64_t passes = attention_library_passes();
  EXPECT_FALSE(problem.forward_by_library(stream_, theirs));
  EXPECT_FALSE(problem.backward_by_library(stream_, theirs, ours));
  EXPECT_EQ(attention_library_refusal(), "prefixes or documents are masked");
  EXPECT_EQ(attention_library_passes(), passes);
  EXPECT_EQ(theirs.o.read().values, before);
  EXPECT_EQ(theirs.dq.read().values, gradients);
}

}  // namespace
}  // namespace red::ops
