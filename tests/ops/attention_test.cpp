#include "ops/attention.hpp"

#include "ops/attention_tensors.hpp"
#include "ops/head_norm_rope.hpp"
#include "support/compare.hpp"
#include "support/every_cpu_target.hpp"
#include "support/one_result.hpp"
#include "support/reference_attention.hpp"

namespace red::ops {
namespace {

using test::AttentionCase;
using test::close;
using test::FloatTensor;
using test::for_every_cpu_target;
using test::kClose;
using test::kGradientsClose;
using test::Matrix;
using test::random_matrix;
using test::reference_attention;
using test::ReferenceAttention;

using Device = test::AttentionTensors<float>;

void expect_equal_to_float64(const AttentionCase& c) {
  SCOPED_TRACE(c.name);
  const ReferenceAttention expected = reference_attention(c);
  for_every_cpu_target([&] {
    Stream stream(2);
    const Device device(c);
    device.forward(stream, c);
    EXPECT_TRUE(close(device.o.read(), expected.o, kClose)) << "o";
    EXPECT_TRUE(close(device.lse.read(), expected.lse, kClose)) << "lse";
    device.backward(stream, c);
    EXPECT_TRUE(close(device.delta.read(), expected.delta, kGradientsClose)) << "delta";
    EXPECT_TRUE(close(device.dq.read(), expected.dq, kGradientsClose)) << "dq";
    EXPECT_TRUE(close(device.dk.read(), expected.dk, kGradientsClose)) << "dk";
    EXPECT_TRUE(close(device.dv.read(), expected.dv, kGradientsClose)) << "dv";
    EXPECT_TRUE(device.padding_untouched());
    EXPECT_EQ(stream.scratch().used(), 0U);
  });
}

TEST(Attention, ByHand) {
  // One head of width 2; scores are q k / sqrt(2): 0 and ln 3, so the probabilities are 1/4 and 3/4.
  AttentionCase c;
  c.heads = 1;
  c.q_offsets = {0, 2};
  c.k_offsets = {0, 2};
  c.q = Matrix(2, 2, {std::sqrt(2.0) * std::log(3.0), 0, 5, 5});
  c.keys = Matrix(2, 2, {0, 1, 1, 0});
  c.values = Matrix(2, 2, {4, 8, 0, 12});
  c.d_o = Matrix(2, 2, {1, 0, 0, 0});
  Stream stream(1);
  const Device device(c);
  device.forward(stream, c);
  // The second query's scores are equal: the mean of the values.
  EXPECT_TRUE(close(device.o.read(), Matrix(2, 2, {1, 11, 2, 10}), {.relative = 1e-6}));
  EXPECT_TRUE(close(device.lse.read(), Matrix(1, 2, {std::log(4.0), 5 / std::sqrt(2.0) + std::log(2.0)}),
                    {.relative = 1e-6}));
  device.backward(stream, c);
  // dp = (4, 0), delta = 1, ds = (1/4 (4 - 1), 3/4 (0 - 1)) / sqrt(2).
  const double ds = 0.75 / std::sqrt(2.0), q0 = std::sqrt(2.0) * std::log(3.0);
  EXPECT_TRUE(close(device.delta.read(), Matrix(1, 2, {1, 0}), {.relative = 1e-6}));
  EXPECT_TRUE(close(device.dq.read(), Matrix(2, 2, {-ds, ds, 0, 0}), {.absolute = 1e-6}));
  EXPECT_TRUE(close(device.dk.read(), Matrix(2, 2, {ds * q0, 0, -ds * q0, 0}), {.absolute = 1e-6}));
  EXPECT_TRUE(close(device.dv.read(), Matrix(2, 2, {0.25, 0, 0.75, 0}), {.absolute = 1e-6}));
}

TEST(Attention, ReferenceAgreesWithFiniteDifferences) {
  for (const AttentionCase& given : {test::small_case("plain"), test::small_case("causal documents")}) {
    SCOPED_TRACE(given.name);
    const ReferenceAttention expected = reference_attention(given);
    const auto loss_with = [&](Matrix AttentionCase::*which) {
      return test::finite_difference(given.*which, [&](const Matrix& at) {
        AttentionCase c = given;
        c.*which = at;
        const Matrix o = reference_attention(c).o;
        double loss = 0.0;
        for (std::size_t i = 0; i < o.values.size(); ++i) loss += o.values[i] * given.d_o.values[i];
        return loss;
      });
    };
    EXPECT_TRUE(close(expected.dq, loss_with(&AttentionCase::q), {.absolute = 1e-8}));
    EXPECT_TRUE(close(expected.dk, loss_with(&AttentionCase::keys), {.absolute = 1e-8}));
    EXPECT_TRUE(close(expected.dv, loss_with(&AttentionCase::values), {.absolute = 1e-8}));
  }
}

TEST(Attention, EveryMaskEqualsFloat64) {
  for (const AttentionCase& c : test::attention_cases()) expect_equal_to_float64(c);
}

TEST(Attention, ThreadsDoNotChangeABit) {
  for (const AttentionCase& c : test::attention_cases()) {
    SCOPED_TRACE(c.name);
    test::expect_one_result([&](Stream& stream) {
      const Device device(c);
      device.forward(stream, c);
      device.backward(stream, c);
      return std::vector{device.o.elements(), device.lse.elements(), device.dq.elements(),
                         device.dk.elements(), device.dv.elements()};
    });
  }
}

template <class T>
void expect_planned_scratch(const AttentionCase& c) {
  SCOPED_TRACE(c.name);
  for_every_cpu_target([&] {
    constexpr int num_threads = 2;
    int64_t longest = 0;
    for (std::size_t s = 0; s + 1 < c.k_offsets.size(); ++s) {
      longest = std::max<int64_t>(longest, c.k_offsets[s + 1] - c.k_offsets[s]);
    }
    const std::size_t planned = attention_scratch_bytes(num_threads, c.heads, c.q.cols / c.heads,
                                                        static_cast<int64_t>(c.q_offsets.size()) - 1, longest,
                                                        dtype_of<T>(), c.q.rows);
    Stream stream(num_threads, planned);
    const test::AttentionTensors<T> device(c);
    device.forward(stream, c);
    device.backward(stream, c);
    EXPECT_LE(stream.scratch().peak(), planned);
  });
}

TEST(Attention, ScratchMemoryIsAsPlanned) {
  for (const AttentionCase& c : test::attention_cases()) {
    expect_planned_scratch<float>(c);
    expect_planned_scratch<bf16>(c);
  }
}

TEST(Attention, PollsInsideLongTasks) {
  if (!test::on_cpu()) GTEST_SKIP() << "a GPU needs no help of the calling thread";
  // One head of 1,500 tokens: 3 tasks forward with 8 tiles of keys each at most, 8 tasks backward.
  const AttentionCase c = test::random_case("long", {1500}, {1500}, 1, 16, 5);
  Stream stream(1);
  const Device device(c);
  int polls = 0;
  stream.set_progress_hook([&] { ++polls; });
  device.forward(stream, c);
  EXPECT_GE(polls, 16);
  attention_delta(stream, device.delta, device.d_o, device.o, nullptr);
  polls = 0;
  device.backward_from(stream, c, device.delta);
  EXPECT_GE(polls, 100);
}

TEST(Attention, QueriesThatSeeNothingGiveExactZeros) {
  AttentionCase c = test::small_case("documents");
  c.q_documents.assign(c.q_documents.size(), 99);
  for_every_cpu_target([&] {
    Stream stream(2);
    const Device device(c);
    device.forward(stream, c);
    device.backward(stream, c);
    EXPECT_TRUE(close(device.o.read(), Matrix(c.q.rows, c.q.cols), {}));
    EXPECT_TRUE(close(device.lse.read(), Matrix(c.heads, c.q.rows, -INFINITY), {}));
    for (const FloatTensor* gradient : {&device.dq, &device.dk, &device.dv}) {
      EXPECT_TRUE(close(gradient->read(), Matrix(gradient->tensor().rows, c.q.cols), {}));
    }
  });
}

TEST(Attention, ColumnsOfOneFusedMatrix) {
  constexpr int64_t tokens = 70, heads = 3, k = 16, width = heads * k;
  const AttentionCase c = test::random_case("fused", {tokens}, {tokens}, heads, k, 1);
  Matrix qkv(tokens, 3 * width);
  for (int64_t i = 0; i < tokens; ++i) {
    for (int64_t j = 0; j < width; ++j) {
      qkv(i, j) = c.q(i, j);
      qkv(i, width + j) = c.keys(i, j);
      qkv(i, 2 * width + j) = c.values(i, j);
    }
  }
  Stream stream(1);
  const Device device(c);
  device.forward(stream, c);
  device.backward(stream, c);
  const FloatTensor fused(qkv), d_fused(tokens, 3 * width), o(tokens, width), lse(heads, tokens);
  const auto part = [&](const FloatTensor& t, int64_t i) { return t.tensor().col_range(i * width, width); };
  const test::AttentionOnDevice where(c);
  attention_forward(stream, o, lse, part(fused, 0), part(fused, 1), part(fused, 2), where.layout(),
                    where.mask());
  EXPECT_EQ(o.read().values, device.o.read().values);
  attention_backward(stream, part(d_fused, 0), part(d_fused, 1), part(d_fused, 2), device.d_o, device.delta,
                     part(fused, 0), part(fused, 1), part(fused, 2), lse, where.layout(), where.mask());
  const Matrix all = d_fused.read(), dq = device.dq.read(), dk = device.dk.read(), dv = device.dv.read();
  for (int64_t i = 0; i < tokens; ++i) {
    for (int64_t j = 0; j < width; ++j) {
      EXPECT_EQ(all(i, j), dq(i, j));
      EXPECT_EQ(all(i, width + j), dk(i, j));
      EXPECT_EQ(all(i, 2 * width + j), dv(i, j));
    }
  }
}

TEST(Attention, DeltaOfANormalisedOutput) {
  for_every_cpu_target([] {
    Stream stream(2);
    const Matrix d_o = random_matrix(37, 3 * 40, 1), o = random_matrix(37, 3 * 40, 2);
    Matrix inv_rms = random_matrix(37, 3, 3), expected(3, 37);
    for (double& x : inv_rms.values) x = std::abs(x) + 0.5;
    for (int64_t t = 0; t < 37; ++t) {
      for (int64_t j = 0; j < 3 * 40; ++j) expected(j / 40, t) += d_o(t, j) * o(t, j) / inv_rms(t, j / 40);
    }
    const FloatTensor delta(3, 37, 2), scale(inv_rms, 1);
    attention_delta(stream, delta, FloatTensor(d_o), FloatTensor(o, 3), &scale.tensor());
    EXPECT_TRUE(close(delta.read(), expected, kGradientsClose));
    EXPECT_TRUE(delta.padding_untouched());
  });
}

TEST(Attention, ProbeEqualsFloat64) {
  for (const AttentionCase& c : test::attention_cases()) {
    SCOPED_TRACE(c.name);
    for_every_cpu_target([&] {
      Stream stream(2);
      const Device device(c);
      device.forward(stream, c);
      for (int64_t s = 0; s + 1 < static_cast<int64_t>(c.q_offsets.size()); ++s) {
        const int64_t rows = c.q_offsets[s + 1] - c.q_offsets[s], first = rows / 3, head = c.heads - 1;
        const FloatTensor probabilities(rows - first, c.k_offsets[s + 1] - c.k_offsets[s], 1);
        device.probe(stream, c, probabilities, s, head, first);
        EXPECT_TRUE(close(probabilities.read(), test::reference_probabilities(c, s, head, first),
                          {.absolute = 1e-5}));
      }
    });
  }
}

TEST(Attention, LogitsOfNormalisedHeadsStaySmall) {
  // After head norm no logit passes sqrt(k), so lse lies within sqrt(k) of log(number of keys).
  constexpr int64_t tokens = 90, k = 128;
  AttentionCase c = test::random_case("normalised", {tokens}, {tokens}, 2, k, 2);
  for (double& x : c.q.values) x *= 1000.0;
  Stream stream(2);
  const Device device(c);
  const FloatTensor q_rms(tokens, 2), k_rms(tokens, 2);
  head_norm(stream, device.q, q_rms, 2, 1e-6F);
  head_norm(stream, device.keys, k_rms, 2, 1e-6F);
  device.forward(stream, c);
  const double bound = std::sqrt(128.0) + 1e-4;
  for (const double lse : device.lse.read().values) EXPECT_LE(std::abs(lse - std::log(90.0)), bound);
}

TEST(Attention, NanComesThrough) {
  for_every_cpu_target([] {
    AttentionCase c = test::random_case("nan", {40}, {40}, 1, 16, 3);
    c.causal = true;
    c.q(7, 3) = NAN;
    c.keys(20, 2) = NAN;
    Stream stream(1);
    const Device device(c);
    device.forward(stream, c);
    const Matrix o = device.o.read();
    for (int64_t i = 0; i < 40; ++i) EXPECT_EQ(std::isnan(o(i, 0)), i == 7 || i >= 20) << i;
  });
}

TEST(Attention, RefusesWhatDoesNotFit) {
  Stream stream(1);
  AttentionCase c = test::small_case("documents");
  const Device device(c);
  const auto forward = [&](const AttentionCase& bad) { device.forward(stream, bad); };
  AttentionCase bad = c;
  if (test::on_cpu()) {
    bad.q_documents[0] = 1000;
    EXPECT_THROW(forward(bad), LogicError);
    bad = c;
    bad.q_offsets.back() += 1;
    EXPECT_THROW(forward(bad), LogicError);
    bad = c;
  }
  bad.heads = 7;
  EXPECT_THROW(forward(bad), LogicError);
  bad = c;
  bad.prefix = std::vector<int32_t>(c.q_offsets.size() - 1, 1);
  bad.causal = false;
  EXPECT_THROW(forward(bad), LogicError);
  Stream small(1, 1024);
  const AttentionCase large = test::random_case("large", {150}, {150}, 1, 16, 4);
  EXPECT_THROW(Device(large).forward(small, large), LogicError);
  const test::AttentionOnDevice where(c);
  EXPECT_THROW(attention_forward(stream, test::AttentionTensors<bf16>(c).o, device.lse, device.q, device.keys,
                                 device.values, where.layout(), where.mask()),
               LogicError);
}

}  // namespace
}  // namespace red::ops
