#include "ops/swiglu.hpp"

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

// fp32: exp to 1 ulp, one division and a few products.
constexpr test::Tolerance kClose = {.absolute = 1e-30, .relative = 1e-6};

struct Shape {
  int64_t rows, width, padding;
};
constexpr Shape kShapes[] = {{1, 1, 0}, {3, 5, 3}, {9, 64, 0}, {33, 1027, 5}, {0, 4, 0}};

double sigmoid(double x) {
  return x < 0 ? std::exp(x) / (1.0 + std::exp(x)) : 1.0 / (1.0 + std::exp(-x));
}

Matrix reference_swiglu(const Matrix& gate_up) {
  Matrix hidden(gate_up.rows, gate_up.cols / 2);
  for (int64_t i = 0; i < hidden.rows; ++i) {
    for (int64_t j = 0; j < hidden.cols; ++j) {
      const double g = gate_up(i, j);
      hidden(i, j) = g * sigmoid(g) * gate_up(i, hidden.cols + j);
    }
  }
  return hidden;
}

Matrix reference_backward(const Matrix& d_hidden, const Matrix& gate_up) {
  Matrix d_gate_up(gate_up.rows, gate_up.cols);
  const int64_t width = d_hidden.cols;
  for (int64_t i = 0; i < d_hidden.rows; ++i) {
    for (int64_t j = 0; j < width; ++j) {
      const double g = gate_up(i, j), s = sigmoid(g), minus = sigmoid(-g);
      d_gate_up(i, j) = d_hidden(i, j) * gate_up(i, width + j) * s * (1.0 + g * minus);
      d_gate_up(i, width + j) = d_hidden(i, j) * g * s;
    }
  }
  return d_gate_up;
}

TEST(Swiglu, ByHand) {
  Stream stream(1);
  const FloatTensor hidden(1, 2);
  // silu(0) = 0; silu(ln 3) = ln 3 * 3 / 4.
  swiglu(stream, hidden, FloatTensor(Matrix(1, 4, {0, std::log(3.0), 5, 2})));
  EXPECT_TRUE(close(hidden.read(), Matrix(1, 2, {0, 1.5 * std::log(3.0)}), {.relative = 3e-7}));
  const FloatTensor d_gate_up(1, 2);
  // silu'(0) = 1 / 2.
  swiglu_backward(stream, d_gate_up, FloatTensor(Matrix(1, 1, {3})), FloatTensor(Matrix(1, 2, {0, 7})));
  EXPECT_TRUE(close(d_gate_up.read(), Matrix(1, 2, {10.5, 0}), {.relative = 3e-7}));
}

TEST(Swiglu, ReferenceAgreesWithFiniteDifferences) {
  const Matrix gate_up = random_matrix(3, 10, 1, 2.0), d_hidden = random_matrix(3, 5, 2);
  const Matrix expected = test::finite_difference(gate_up, [&](const Matrix& at) {
    const Matrix hidden = reference_swiglu(at);
    double loss = 0.0;
    for (std::size_t i = 0; i < hidden.values.size(); ++i) loss += hidden.values[i] * d_hidden.values[i];
    return loss;
  });
  EXPECT_TRUE(close(reference_backward(d_hidden, gate_up), expected, {.absolute = 1e-8}));
}

TEST(Swiglu, EqualsFloat64) {
  for_every_cpu_target([] {
    for (const auto& [rows, width, padding] : kShapes) {
      Stream stream(2);
      const Matrix gate_up = random_matrix(rows, 2 * width, 3, 4.0), d_hidden = random_matrix(rows, width, 4);
      const FloatTensor hidden(rows, width, padding), in_place(gate_up, padding);
      swiglu(stream, hidden, in_place);
      EXPECT_TRUE(close(hidden.read(), reference_swiglu(gate_up), kClose)) << rows << " x " << width;
      EXPECT_TRUE(hidden.padding_untouched());
      swiglu_backward(stream, in_place, FloatTensor(d_hidden, 1), in_place);
      // The slope s (1 + g (1 - s)) passes through 0 near g = -1.28: there the error is absolute.
      EXPECT_TRUE(close(in_place.read(), reference_backward(d_hidden, gate_up),
                        {.absolute = 1e-6, .relative = 1e-6}));
      EXPECT_TRUE(in_place.padding_untouched());
    }
  });
}

TEST(Swiglu, Bf16EqualsFloat64OfTheRoundedArguments) {
  for_every_cpu_target([] {
    for (const auto& [rows, width, padding] : kShapes) {
      Stream stream(2);
      const Matrix gate_up = as_bf16(random_matrix(rows, 2 * width, 7, 4.0)),
                   d_hidden = as_bf16(random_matrix(rows, width, 8));
      const Bf16Tensor hidden(rows, width, padding), in_place(gate_up, padding);
      swiglu(stream, hidden, in_place);
      EXPECT_TRUE(close(hidden.read(), reference_swiglu(gate_up),
                        {.absolute = 1e-30, .relative = test::kBf16Rounding}));
      EXPECT_TRUE(hidden.padding_untouched());
      swiglu_backward(stream, in_place, Bf16Tensor(d_hidden, 1), in_place);
      EXPECT_TRUE(close(in_place.read(), reference_backward(d_hidden, gate_up),
                        {.absolute = 1e-6, .relative = test::kBf16Rounding}));
      EXPECT_TRUE(in_place.padding_untouched());
    }
  });
}

TEST(Swiglu, LargeGates) {
  for_every_cpu_target([] {
    Stream stream(1);
    const std::vector<double> gates = {-1e30, -1000, -104, -88, -87, -60, -20,  -5,
                                       5,     20,    60,   87,  88,  104, 1000, 1e30};
    const auto n = static_cast<int64_t>(gates.size());
    Matrix gate_up(1, 2 * n, 1.0);
    std::copy(gates.begin(), gates.end(), gate_up.values.begin());
    const FloatTensor hidden(1, n), given(gate_up), d_gate_up(1, 2 * n);
    swiglu(stream, hidden, given);
    // Below exp(-87.3) the sigmoid is 0.
    const test::Tolerance tolerance = {.absolute = 2e-36, .relative = 1e-6};
    EXPECT_TRUE(close(hidden.read(), reference_swiglu(gate_up), tolerance));
    swiglu_backward(stream, d_gate_up, FloatTensor(Matrix(1, n, 1.0)), given);
    EXPECT_TRUE(close(d_gate_up.read(), reference_backward(Matrix(1, n, 1.0), gate_up), tolerance));
  });
}

TEST(Swiglu, NanComesThrough) {
  for_every_cpu_target([] {
    Stream stream(1);
    const FloatTensor hidden(1, 9);
    Matrix gate_up(1, 18, 1.0);
    gate_up(0, 3) = gate_up(0, 8) = NAN;
    swiglu(stream, hidden, FloatTensor(gate_up));
    EXPECT_TRUE(close(hidden.read(), reference_swiglu(gate_up), kClose));
  });
}

TEST(Swiglu, ThreadsDoNotChangeABit) {
  const Matrix gate_up = random_matrix(300, 2 * 131, 5), d_hidden = random_matrix(300, 131, 6);
  test::expect_one_result([&](Stream& stream) {
    const FloatTensor hidden(300, 131), d_gate_up(300, 2 * 131), given(gate_up);
    swiglu(stream, hidden, given);
    swiglu_backward(stream, d_gate_up, FloatTensor(d_hidden), given);
    return std::vector{hidden.elements(), d_gate_up.elements()};
  });
}

TEST(Swiglu, RefusesOtherShapes) {
  Stream stream(1);
  EXPECT_THROW(swiglu(stream, FloatTensor(2, 3), FloatTensor(2, 5)), LogicError);
  EXPECT_THROW(swiglu(stream, FloatTensor(2, 3), Bf16Tensor(2, 6)), LogicError);
  EXPECT_THROW(swiglu_backward(stream, FloatTensor(2, 6), FloatTensor(3, 3), FloatTensor(3, 6)), LogicError);
}

}  // namespace
}  // namespace red::ops
