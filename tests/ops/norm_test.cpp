#include "ops/norm.hpp"

#include "support/compare.hpp"
#include "support/every_cpu_target.hpp"
#include "support/finite_difference.hpp"
#include "support/one_result.hpp"

namespace red::ops {
namespace {

using test::as_bf16;
using test::Bf16Tensor;
using test::close;
using test::FloatTensor;
using test::for_every_cpu_target;
using test::Matrix;
using test::random_matrix;
using test::Tolerance;

constexpr double kEpsilon = 1e-6;
// fp32: a mean of squares over up to 1,100 elements and a few products, each with one rounding of 6e-8.
constexpr Tolerance kClose = {.absolute = 2e-6, .relative = 2e-6};

// The same arithmetic, and its result rounded once to bf16.
constexpr Tolerance kCloseBf16 = {.absolute = 2e-6, .relative = test::kBf16Rounding};

struct Shape {
  int64_t rows, cols, padding;
};
constexpr Shape kShapes[] = {{1, 1, 0}, {3, 5, 2}, {7, 64, 0}, {37, 1024, 0}, {131, 1031, 9}, {0, 8, 0}};

struct Reference {
  Matrix y, inv_rms;  // (n, d), (n, 1)
};

Reference reference_norm(const Matrix& x, const Matrix& gain) {
  Reference r{x, Matrix(x.rows, 1)};
  for (int64_t i = 0; i < x.rows; ++i) {
    double squares = 0.0;
    for (int64_t j = 0; j < x.cols; ++j) squares += x(i, j) * x(i, j);
    r.inv_rms(i, 0) = 1.0 / std::sqrt(squares / static_cast<double>(x.cols) + kEpsilon);
    for (int64_t j = 0; j < x.cols; ++j) r.y(i, j) = x(i, j) * r.inv_rms(i, 0) * gain(j, 0);
  }
  return r;
}

/// residual + dx, from the definition dx_j = sum over i of dy_i dy_i/dx_j.
Matrix reference_backward_input(const Matrix& dy, const Matrix& x, const Matrix& gain) {
  const Matrix inv_rms = reference_norm(x, gain).inv_rms;
  Matrix dx(x.rows, x.cols);
  for (int64_t t = 0; t < x.rows; ++t) {
    const double s = inv_rms(t, 0);
    double dot = 0.0;
    for (int64_t i = 0; i < x.cols; ++i) dot += dy(t, i) * gain(i, 0) * x(t, i);
    for (int64_t j = 0; j < x.cols; ++j) {
      dx(t, j) = s * dy(t, j) * gain(j, 0) - s * s * s * x(t, j) * dot / static_cast<double>(x.cols);
    }
  }
  return dx;
}

Matrix reference_backward_gain(const Matrix& dy, const Matrix& x, const Matrix& inv_rms) {
  Matrix dgain(x.cols, 1);
  for (int64_t t = 0; t < x.rows; ++t) {
    for (int64_t j = 0; j < x.cols; ++j) dgain(j, 0) += dy(t, j) * x(t, j) * inv_rms(t, 0);
  }
  return dgain;
}

Matrix sum_of(Matrix a, const Matrix& b) {
  for (std::size_t i = 0; i < a.values.size(); ++i) a.values[i] += b.values[i];
  return a;
}

double dot(const Matrix& a, const Matrix& b) {
  double sum = 0.0;
  for (std::size_t i = 0; i < a.values.size(); ++i) sum += a.values[i] * b.values[i];
  return sum;
}

TEST(RmsNorm, ByHand) {
  Stream stream(1);
  const FloatTensor y(2, 2), inv_rms(2, 1);
  // Mean squares 25 / 2 and 0; without epsilon 1 / rms of the first row is sqrt(2) / 5.
  rms_norm(stream, y, inv_rms, FloatTensor(Matrix(2, 2, {3, 4, 0, 0})), FloatTensor(Matrix(2, 1, {1, 10})),
           0.25F);
  const double s = 1.0 / std::sqrt(12.75);
  EXPECT_TRUE(close(y.read(), Matrix(2, 2, {3 * s, 40 * s, 0, 0}), {.relative = 3e-7}));
  EXPECT_TRUE(close(inv_rms.read(), Matrix(2, 1, {s, 2}), {.relative = 3e-7}));
}

TEST(RmsNorm, ReferencesAgreeWithFiniteDifferences) {
  const Matrix x = random_matrix(3, 7, 1), gain = random_matrix(7, 1, 2), dy = random_matrix(3, 7, 3);
  const Matrix dx =
      test::finite_difference(x, [&](const Matrix& at) { return dot(dy, reference_norm(at, gain).y); });
  EXPECT_TRUE(close(reference_backward_input(dy, x, gain), dx, {.absolute = 1e-8}));
  const Matrix dgain =
      test::finite_difference(gain, [&](const Matrix& at) { return dot(dy, reference_norm(x, at).y); });
  EXPECT_TRUE(
      close(reference_backward_gain(dy, x, reference_norm(x, gain).inv_rms), dgain, {.absolute = 1e-8}));
}

TEST(RmsNorm, ForwardEqualsFloat64) {
  for_every_cpu_target([] {
    for (const auto& [rows, cols, padding] : kShapes) {
      Stream stream(2);
      const Matrix x = random_matrix(rows, cols, 4, 3.0), gain = random_matrix(cols, 1, 5);
      const Reference expected = reference_norm(x, gain);
      const FloatTensor y(rows, cols, padding), inv_rms(rows, 1), given(x, 2 * padding), g(gain);
      rms_norm(stream, y, inv_rms, given, g, kEpsilon);
      EXPECT_TRUE(close(y.read(), expected.y, kClose)) << rows << " x " << cols;
      EXPECT_TRUE(close(inv_rms.read(), expected.inv_rms, kClose));
      EXPECT_TRUE(y.padding_untouched());
      const FloatTensor again(rows, cols, padding);
      rms_norm_recompute(stream, again, given, inv_rms, g);
      EXPECT_EQ(again.read().values, y.read().values);
    }
  });
}

TEST(RmsNorm, AddsTheBranchFirst) {
  for_every_cpu_target([] {
    for (const auto& [rows, cols, padding] : kShapes) {
      Stream stream(2);
      const Matrix x = random_matrix(rows, cols, 6), branch = random_matrix(rows, cols, 7);
      const Matrix gain = random_matrix(cols, 1, 8);
      const Reference expected = reference_norm(sum_of(x, branch), gain);
      const FloatTensor y(rows, cols), inv_rms(rows, 1), in_place(x, padding), g(gain);
      add_rms_norm(stream, in_place, y, inv_rms, in_place, FloatTensor(branch), g, kEpsilon);
      EXPECT_TRUE(close(in_place.read(), sum_of(x, branch), {.relative = 6e-8}));
      EXPECT_TRUE(close(y.read(), expected.y, kClose)) << rows << " x " << cols;
      EXPECT_TRUE(close(inv_rms.read(), expected.inv_rms, kClose));
      EXPECT_TRUE(in_place.padding_untouched());
    }
  });
}

TEST(RmsNorm, BackwardInputEqualsFloat64) {
  for_every_cpu_target([] {
    for (const auto& [rows, cols, padding] : kShapes) {
      Stream stream(2);
      const Matrix x = random_matrix(rows, cols, 9, 2.0), gain = random_matrix(cols, 1, 10);
      const Matrix dy = random_matrix(rows, cols, 11), residual = random_matrix(rows, cols, 12);
      const Matrix expected = reference_backward_input(dy, x, gain);
      const FloatTensor given(x, padding), g(gain), inv_rms(reference_norm(x, gain).inv_rms);

      const FloatTensor in_place_of_dy(dy, padding);
      rms_norm_backward_input(stream, in_place_of_dy, {}, in_place_of_dy, given, inv_rms, g);
      EXPECT_TRUE(close(in_place_of_dy.read(), expected, kClose)) << rows << " x " << cols;

      const FloatTensor in_place_of_residual(residual, padding);
      rms_norm_backward_input(stream, in_place_of_residual, in_place_of_residual, FloatTensor(dy), given,
                              inv_rms, g);
      EXPECT_TRUE(close(in_place_of_residual.read(), sum_of(expected, residual), kClose));
      EXPECT_TRUE(in_place_of_residual.padding_untouched());
    }
  });
}

TEST(RmsNorm, BackwardGainAddsUp) {
  for_every_cpu_target([] {
    for (const auto& [rows, cols, padding] : kShapes) {
      Stream stream(2);
      const Matrix x = random_matrix(rows, cols, 13), dy = random_matrix(rows, cols, 14);
      const Matrix inv_rms = reference_norm(x, Matrix(cols, 1, 1.0)).inv_rms,
                   before = random_matrix(cols, 1, 15);
      const FloatTensor dgain(before);
      rms_norm_backward_gain(stream, dgain, FloatTensor(dy, padding), FloatTensor(x), FloatTensor(inv_rms));
      // fp32 sums of 131 products of N(0, 1).
      EXPECT_TRUE(
          close(dgain.read(), sum_of(reference_backward_gain(dy, x, inv_rms), before), {.absolute = 2e-5}));
    }
  });
}

TEST(RmsNorm, Bf16ForwardEqualsFloat64OfTheRoundedArguments) {
  for_every_cpu_target([] {
    for (const auto& [rows, cols, padding] : kShapes) {
      Stream stream(2);
      const Matrix x = as_bf16(random_matrix(rows, cols, 19, 3.0)), gain = random_matrix(cols, 1, 20);
      const Reference expected = reference_norm(x, gain);
      const Bf16Tensor y(rows, cols, padding), given(x, padding + 1);
      const FloatTensor inv_rms(rows, 1), g(gain);
      rms_norm(stream, y, inv_rms, given, g, kEpsilon);
      EXPECT_TRUE(close(y.read(), expected.y, kCloseBf16)) << rows << " x " << cols;
      EXPECT_TRUE(close(inv_rms.read(), expected.inv_rms, kClose));
      EXPECT_TRUE(y.padding_untouched());
    }
  });
}

TEST(RmsNorm, Bf16NormIsThatOfTheStoredSum) {
  for_every_cpu_target([] {
    for (const auto& [rows, cols, padding] : kShapes) {
      Stream stream(2);
      const Matrix x = as_bf16(random_matrix(rows, cols, 21)),
                   branch = as_bf16(random_matrix(rows, cols, 22));
      const FloatTensor g(random_matrix(cols, 1, 23)), inv_rms(rows, 1), inv_rms_again(rows, 1);
      const Bf16Tensor out(x, padding), y(rows, cols), again(rows, cols), recomputed(rows, cols);
      add_rms_norm(stream, out, y, inv_rms, out, Bf16Tensor(branch), g, kEpsilon);
      EXPECT_TRUE(close(out.read(), sum_of(x, branch), {.relative = test::kBf16Rounding}));
      EXPECT_TRUE(out.padding_untouched());
      rms_norm(stream, again, inv_rms_again, out, g, kEpsilon);
      rms_norm_recompute(stream, recomputed, out, inv_rms, g);
      EXPECT_EQ(inv_rms_again.read().values, inv_rms.read().values) << rows << " x " << cols;
      EXPECT_EQ(again.read().values, y.read().values);
      EXPECT_EQ(recomputed.read().values, y.read().values);
    }
  });
}

TEST(RmsNorm, Bf16BackwardEqualsFloat64OfTheRoundedArguments) {
  for_every_cpu_target([] {
    for (const auto& [rows, cols, padding] : kShapes) {
      Stream stream(2);
      const Matrix x = as_bf16(random_matrix(rows, cols, 24)), dy = as_bf16(random_matrix(rows, cols, 25)),
                   residual = as_bf16(random_matrix(rows, cols, 26)), gain = random_matrix(cols, 1, 27);
      const Matrix inverse = reference_norm(x, gain).inv_rms;
      const FloatTensor g(gain), inv_rms(inverse), dgain(cols, 1);
      const Bf16Tensor given(x, padding), d(dy), dx(residual, padding);
      rms_norm_backward_input(stream, dx, dx, d, given, inv_rms, g);
      EXPECT_TRUE(close(dx.read(), sum_of(reference_backward_input(dy, x, gain), residual), kCloseBf16));
      EXPECT_TRUE(dx.padding_untouched());
      rms_norm_backward_gain(stream, dgain, d, given, inv_rms);
      // fp32 sums of 131 products of N(0, 1).
      EXPECT_TRUE(close(dgain.read(), reference_backward_gain(dy, x, inverse), {.absolute = 2e-5}));
    }
  });
}

TEST(RmsNorm, ThreadsDoNotChangeABit) {
  const Matrix x = random_matrix(1500, 97, 16), dy = random_matrix(1500, 97, 17),
               gain = random_matrix(97, 1, 18);
  test::expect_one_result([&](Stream& stream) {
    const FloatTensor sum(x), y(1500, 97), inv_rms(1500, 1), g(gain), dx(1500, 97), dgain(97, 1), d(dy);
    add_rms_norm(stream, sum, y, inv_rms, sum, d, g, kEpsilon);
    rms_norm_backward_input(stream, dx, sum, d, sum, inv_rms, g);
    rms_norm_backward_gain(stream, dgain, d, sum, inv_rms);
    return std::vector{y.elements(), inv_rms.elements(), dx.elements(), dgain.elements()};
  });
}

TEST(RmsNorm, RefusesOtherShapes) {
  Stream stream(1);
  const FloatTensor x(3, 4), inv_rms(3, 1), gain(4, 1), other(3, 5);
  EXPECT_THROW(rms_norm(stream, other, inv_rms, x, gain, kEpsilon), LogicError);
  EXPECT_THROW(rms_norm(stream, x, inv_rms, x, FloatTensor(5, 1), kEpsilon), LogicError);
  EXPECT_THROW(rms_norm(stream, x, FloatTensor(4, 1), x, gain, kEpsilon), LogicError);
  EXPECT_THROW(rms_norm_backward_gain(stream, FloatTensor(5, 1), x, x, inv_rms), LogicError);
  EXPECT_THROW(rms_norm(stream, Bf16Tensor(3, 4), inv_rms, x, gain, kEpsilon), LogicError);
}

}  // namespace
}  // namespace red::ops
