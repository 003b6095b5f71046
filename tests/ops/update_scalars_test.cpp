#include "ops/update_scalars.hpp"

#include <cmath>
#include <limits>
#include <vector>

#include "support/compare.hpp"

namespace red::ops {
namespace {

using test::close;
using test::DoubleTensor;
using test::Matrix;

/// fp64 throughout: a few roundings, of which a power is the worst.
constexpr test::Tolerance kClose = {.relative = 1e-14};

/// loss, cross-entropy, targets, and the squares of each parameter.
Matrix sums_of(double loss, double targets, const std::vector<double>& squares) {
  Matrix sums(kStepSums + static_cast<int64_t>(squares.size()), 1);
  sums(sum_loss, 0) = loss;
  sums(sum_cross_entropy, 0) = loss / 2;
  sums(sum_targets, 0) = targets;
  sums(sum_stop, 0) = 3.0;
  for (std::size_t i = 0; i < squares.size(); ++i) sums(kStepSums + static_cast<int64_t>(i), 0) = squares[i];
  return sums;
}

struct Result {
  Matrix scalars;
  double updates;
};

Result update(const Matrix& sums, double updates, double clip) {
  Stream stream(1);
  const DoubleTensor scalars(kStepScalars, 1), count(Matrix(1, 1, updates));
  update_scalars(stream, scalars, count, DoubleTensor(sums), 0.25, 0.8, clip);
  return {scalars.read(), count.value()};
}

TEST(UpdateScalars, ByHand) {
  // Norm of the mean gradient: sqrt(9 + 16) / 10 = 0.5, clipped to 0.1.
  const Result result = update(sums_of(30.0, 10.0, {9.0, 16.0}), 1.0, 0.1);
  EXPECT_EQ(result.updates, 2.0);
  Matrix expected(kStepScalars, 1);
  expected(scalar_gradient_scale, 0) = 0.2 / 10;
  expected(scalar_decay, 0) = 1.0 - std::pow(2.0, -0.8);
  expected(scalar_learning_rate, 0) = 0.25;
  expected(scalar_apply, 0) = 1.0;
  expected(scalar_gradient_norm, 0) = 0.5;
  expected(scalar_loss, 0) = 3.0;
  expected(scalar_cross_entropy, 0) = 1.5;
  expected(scalar_targets, 0) = 10.0;
  expected(scalar_stop, 0) = 3.0;
  EXPECT_TRUE(close(result.scalars, expected, kClose));
}

TEST(UpdateScalars, SmallGradientsAreNotClippedAndTheFirstDecayIsNone) {
  for (const double clip : {0.0, 1.0}) {
    const Result result = update(sums_of(1.0, 4.0, {4.0}), 0.0, clip);
    EXPECT_EQ(result.scalars(scalar_gradient_scale, 0), 0.25);
    EXPECT_EQ(result.scalars(scalar_decay, 0), 0.0);
  }
}

TEST(UpdateScalars, AddsManyParametersInTheirOrder) {
  std::vector<double> squares;
  double sum = 0.0;
  for (int i = 0; i < 333; ++i) {
    squares.push_back(std::pow(10.0, i % 17 - 8));
    sum += squares.back();
  }
  const Result result = update(sums_of(1.0, 1.0, squares), 0.0, 0.0);
  EXPECT_EQ(result.scalars(scalar_gradient_norm, 0), std::sqrt(sum));
}

TEST(UpdateScalars, WhatIsNotFiniteCallsTheStepOff) {
  for (const double wrong :
       {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
    for (const Matrix& sums : {sums_of(wrong, 10.0, {1.0}), sums_of(1.0, 10.0, {1.0, wrong})}) {
      const Result result = update(sums, 5.0, 1.0);
      EXPECT_EQ(result.updates, 5.0);
      EXPECT_EQ(result.scalars(scalar_apply, 0), 0.0);
      EXPECT_EQ(result.scalars(scalar_gradient_scale, 0), 0.0);
    }
  }
}

}  // namespace
}  // namespace red::ops
