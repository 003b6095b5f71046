// bf16 attention, against float64 of the same rounded arguments.
#include "ops/attention.hpp"
#include "ops/attention_tensors.hpp"
#include "support/every_bf16_arithmetic.hpp"
#include "support/every_cpu_target.hpp"
#include "support/one_result.hpp"

namespace red::ops {
namespace {

using test::AttentionCase;
using test::Bf16Tensor;
using test::close;
using test::FloatTensor;
using test::for_every_cpu_target;
using test::kClose;
using test::kGradientsClose;
using test::Matrix;
using test::reference_attention;
using test::ReferenceAttention;

using Device = test::AttentionTensors<bf16>;

// The same sums, rounded once when they are stored.
constexpr test::Tolerance rounded(test::Tolerance tolerance) {
  return {tolerance.absolute, test::kBf16Rounding};
}

// Tensor cores of a GPU (heads of 64 and 128) and a processor's bf16 arithmetic take probabilities and the
// gradients of scores as bf16: each term of a sum is off by up to 2^-9, so that a result of few terms of up
// to 4 may be off by 2^-7.
test::Tolerance rounded(test::Tolerance tolerance, const AttentionCase& c, const Stream& stream) {
  const int64_t width = c.q.cols / c.heads;
  const bool bf16_terms = test::on_cpu() ? stream.gemm().has_bf16_arithmetic() : width == 64 || width == 128;
  if (bf16_terms) tolerance.absolute = 0x1p-7;
  return rounded(tolerance);
}

void expect_equal_to_float64(Stream& stream, const AttentionCase& c, const ReferenceAttention& expected) {
  const Device device(c);
  device.forward(stream, c);
  EXPECT_TRUE(close(device.o.read(), expected.o, rounded(kClose, c, stream))) << "o";
  EXPECT_TRUE(close(device.lse.read(), expected.lse, kClose)) << "lse";
  const FloatTensor delta(expected.delta);
  device.backward_from(stream, c, delta);
  const test::Tolerance gradients = rounded(kGradientsClose, c, stream);
  EXPECT_TRUE(close(device.dq.read(), expected.dq, gradients)) << "dq";
  EXPECT_TRUE(close(device.dk.read(), expected.dk, gradients)) << "dk";
  EXPECT_TRUE(close(device.dv.read(), expected.dv, gradients)) << "dv";
  EXPECT_TRUE(device.padding_untouched());
  EXPECT_EQ(stream.scratch().used(), 0U);
  const Matrix o = device.o.read();
  Matrix of_stored(c.heads, c.q.rows);
  for (int64_t t = 0; t < o.rows; ++t) {
    for (int64_t j = 0; j < o.cols; ++j) of_stored(j / (o.cols / c.heads), t) += o(t, j) * c.d_o(t, j);
  }
  attention_delta(stream, device.delta, device.d_o, device.o, nullptr);
  EXPECT_TRUE(close(device.delta.read(), of_stored, kGradientsClose)) << "delta";
}

TEST(AttentionBf16, EqualsFloat64OfTheRoundedArguments) {
  for (const AttentionCase& given : test::attention_cases()) {
    SCOPED_TRACE(given.name);
    const AttentionCase c = as_bf16(given);
    const ReferenceAttention expected = reference_attention(c);
    for_every_cpu_target([&] {
      test::for_every_bf16_arithmetic(2,
                                      [&](Stream& stream) { expect_equal_to_float64(stream, c, expected); });
    });
  }
}

TEST(AttentionBf16, ProbeEqualsFloat64) {
  const AttentionCase c = as_bf16(test::random_case("probe", {70}, {90}, 2, 40, 7));
  for_every_cpu_target([&] {
    Stream stream(2);
    const Device device(c);
    device.forward(stream, c);
    const FloatTensor probabilities(60, 90, 1);
    device.probe(stream, c, probabilities, 0, 1, 10);
    EXPECT_TRUE(close(probabilities.read(), test::reference_probabilities(c, 0, 1, 10), {.absolute = 1e-5}));
  });
}

TEST(AttentionBf16, ThreadsDoNotChangeABit) {
  for (const AttentionCase& c : test::attention_cases()) {
    SCOPED_TRACE(c.name);
    const auto values = [](const Bf16Tensor& t) {
      const std::vector<bf16> elements = t.elements();
      return std::vector<float>(elements.begin(), elements.end());
    };
    test::expect_one_result([&](Stream& stream) {
      const Device device(c);
      device.forward(stream, c);
      device.backward(stream, c);
      return std::vector{values(device.o), values(device.dq), values(device.dk), values(device.dv)};
    });
  }
}

}  // namespace
}  // namespace red::ops
