#include "ops/elementwise.hpp"

#include <bit>
#include <cmath>
#include <limits>

#include "support/compare.hpp"
#include "support/every_cpu_target.hpp"

namespace red::ops {
namespace {

using test::as_bf16;
using test::Bf16Tensor;
using test::close;
using test::FloatTensor;
using test::for_every_cpu_target;
using test::Matrix;
using test::random_matrix;

struct Shape {
  int64_t rows, cols, padding;
};
// Shorter than a vector, longer, longer than a block of work, and none at all.
constexpr Shape kShapes[] = {{1, 1, 0},     {3, 5, 2},      {7, 33, 0}, {129, 1025, 7},
                             {2, 70001, 3}, {1, 100003, 0}, {0, 4, 0},  {4, 0, 1}};

TEST(Elementwise, AddsByHand) {
  Stream stream(1);
  const FloatTensor y(2, 2);
  add(stream, y, FloatTensor(Matrix(2, 2, {1, 2, 3, 4})), FloatTensor(Matrix(2, 2, {10, 20, 30, 40})));
  EXPECT_TRUE(close(y.read(), Matrix(2, 2, {11, 22, 33, 44}), {}));
}

TEST(Elementwise, AddEqualsFloat64AndKeepsThePadding) {
  for_every_cpu_target([] {
    for (const auto& [rows, cols, padding] : kShapes) {
      Stream stream(2);
      const Matrix a = random_matrix(rows, cols, 1), b = random_matrix(rows, cols, 2);
      Matrix sum = a;
      for (std::size_t i = 0; i < sum.values.size(); ++i) sum.values[i] += b.values[i];
      const FloatTensor y(rows, cols, padding);
      add(stream, y, FloatTensor(a, padding + 1), FloatTensor(b));
      // fp32: one rounding.
      EXPECT_TRUE(close(y.read(), sum, {.relative = 6e-8})) << rows << " x " << cols;
      EXPECT_TRUE(y.padding_untouched());
    }
  });
}

TEST(Elementwise, AddInPlace) {
  for_every_cpu_target([] {
    Stream stream(2);
    const Matrix a = random_matrix(5, 37, 3);
    Matrix twice = a;
    for (double& x : twice.values) x *= 2.0;
    const FloatTensor y(a, 3);
    add(stream, y, y, y);
    EXPECT_TRUE(close(y.read(), twice, {}));
    EXPECT_TRUE(y.padding_untouched());
  });
}

TEST(Elementwise, FillAndCopy) {
  for_every_cpu_target([] {
    for (const auto& [rows, cols, padding] : kShapes) {
      Stream stream(2);
      const FloatTensor y(rows, cols, padding);
      fill(stream, y, 2.5F);
      EXPECT_TRUE(close(y.read(), Matrix(rows, cols, 2.5), {}));
      const Matrix x = random_matrix(rows, cols, 4);
      copy(stream, y, FloatTensor(x));
      EXPECT_TRUE(close(y.read(), x, {})) << rows << " x " << cols;
      EXPECT_TRUE(y.padding_untouched());
    }
  });
}

/// Every upper half of an fp32 number, with lower halves around the ties and the ends.
std::vector<float> edge_cases() {
  std::vector<float> values;
  for (uint32_t upper = 0; upper < 0x10000; ++upper) {
    for (const uint32_t lower : {0U, 1U, 0x7FFFU, 0x8000U, 0x8001U, 0xFFFFU})
      values.push_back(std::bit_cast<float>(upper << 16 | lower));
  }
  values.push_back(0.0F);  // no whole number of vectors
  return values;
}

TEST(Elementwise, CopyRoundsEveryValueAsTheScalarTypeDoes) {
  const std::vector<float> values = edge_cases();
  const auto n = static_cast<int64_t>(values.size());
  for_every_cpu_target([&] {
    Stream stream(2);
    const test::DeviceArray<float> given(values), widened(std::vector<float>(values.size()));
    const test::DeviceArray<bf16> narrowed(std::vector<bf16>(values.size()));
    copy(stream, make_tensor(narrowed.data(), 1, n), make_tensor(given.data(), 1, n));
    copy(stream, make_tensor(widened.data(), 1, n), make_tensor(narrowed.data(), 1, n));
    const std::vector<bf16> rounded = narrowed.read();
    const std::vector<float> back = widened.read();
    int64_t wrong = 0;
    for (int64_t i = 0; i < n; ++i) {
      bf16 expected(values[i]);
      // Which NaN a NaN becomes is the processor's business elsewhere than on a CPU.
      if (!test::on_cpu() && std::isnan(values[i]) && std::isnan(static_cast<float>(rounded[i])))
        expected = rounded[i];
      const auto back_bits = std::bit_cast<uint32_t>(back[i]);
      if (rounded[i].bits != expected.bits ||
          back_bits != std::bit_cast<uint32_t>(static_cast<float>(expected)))
        ++wrong;
    }
    EXPECT_EQ(wrong, 0);
  });
}

TEST(Elementwise, Bf16FillAddAndCopy) {
  for_every_cpu_target([] {
    for (const auto& [rows, cols, padding] : kShapes) {
      Stream stream(2);
      const Matrix a = as_bf16(random_matrix(rows, cols, 5)), b = as_bf16(random_matrix(rows, cols, 6));
      Matrix sum = a;
      for (std::size_t i = 0; i < sum.values.size(); ++i) sum.values[i] += b.values[i];
      const Bf16Tensor y(rows, cols, padding);
      fill(stream, y, 0.1F);
      EXPECT_TRUE(close(y.read(), as_bf16(Matrix(rows, cols, 0.1F)), {}));
      // The exact sum of two bf16 numbers may need more digits than fp32 has; then it is rounded twice.
      add(stream, y, Bf16Tensor(a, padding + 1), Bf16Tensor(b));
      EXPECT_TRUE(close(y.read(), sum, {.relative = test::kBf16Rounding})) << rows << " x " << cols;
      const Bf16Tensor copied(rows, cols, padding + 2);
      copy(stream, copied, y);
      EXPECT_TRUE(close(copied.read(), y.read(), {}));
      EXPECT_TRUE(y.padding_untouched() && copied.padding_untouched());
    }
  });
}

TEST(Elementwise, AddOfTwoTypes) {
  for_every_cpu_target([] {
    Stream stream(2);
    const Matrix a = random_matrix(5, 1037, 7), b = as_bf16(random_matrix(5, 1037, 8));
    Matrix sum = a;
    for (std::size_t i = 0; i < sum.values.size(); ++i) sum.values[i] += b.values[i];
    const FloatTensor total(a, 3);
    add(stream, total, total, Bf16Tensor(b));
    EXPECT_TRUE(close(total.read(), sum, {.relative = 6e-8}));  // fp32: one rounding
    const Bf16Tensor rounded(b, 3);
    add(stream, rounded, rounded, FloatTensor(a));
    EXPECT_TRUE(close(rounded.read(), sum, {.relative = test::kBf16Rounding}));
    EXPECT_TRUE(total.padding_untouched() && rounded.padding_untouched());
  });
}

TEST(Elementwise, RefusesOtherShapes) {
  Stream stream(1);
  EXPECT_THROW(copy(stream, FloatTensor(2, 3), FloatTensor(3, 2)), LogicError);
  EXPECT_THROW(add(stream, FloatTensor(2, 3), FloatTensor(2, 3), FloatTensor(2, 2)), LogicError);
  EXPECT_THROW(copy(stream, FloatTensor(2, 3), test::DoubleTensor(2, 3)), LogicError);
  EXPECT_THROW(add(stream, FloatTensor(2, 3), Bf16Tensor(2, 3), FloatTensor(2, 3)), LogicError);
}

}  // namespace
}  // namespace red::ops
