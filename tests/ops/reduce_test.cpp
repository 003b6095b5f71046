#include "ops/reduce.hpp"

#include <limits>

#include "support/compare.hpp"
#include "support/every_cpu_target.hpp"

namespace red::ops {
namespace {

using test::close;
using test::DoubleTensor;
using test::FloatTensor;
using test::for_every_cpu_target;
using test::Matrix;
using test::random_matrix;

double sum_of(const Tensor& x, int num_threads = 2, double start = 0.0) {
  Stream stream(num_threads, 1 << 16);
  const DoubleTensor sum(Matrix(1, 1, start));
  sum_of_squares(stream, sum, x);
  return sum.value();
}

TEST(SumOfSquares, ByHandAddsToTheOldValue) {
  EXPECT_EQ(sum_of(FloatTensor(Matrix(2, 2, {1, 2, 3, 4})), 1, 100.0), 130.0);
}

TEST(SumOfSquares, EqualsFloat64AtOddSizes) {
  constexpr int64_t shapes[][2] = {{0, 3}, {1, 1}, {3, 5}, {1, 1025}, {129, 1023}, {200003, 1}, {2, 150001}};
  for_every_cpu_target([&] {
    for (const auto& [rows, cols] : shapes) {
      const Matrix x = random_matrix(rows, cols, 1);
      double expected = 0.0;
      for (const double v : x.values) expected += v * v;
      // fp64 throughout: only the order of the sum differs, and the one here is the worse.
      EXPECT_TRUE(close(sum_of(FloatTensor(x)), expected, {.relative = 1e-12})) << rows << " x " << cols;
    }
  });
}

TEST(SumOfSquares, DependsOnTheShapeAlone) {
  for_every_cpu_target([] {
    const Matrix x = random_matrix(301, 777, 2);
    const FloatTensor packed(x), padded(x, 5);
    const double once = sum_of(packed, 1);
    for (const int num_threads : {1, 2, 3}) {
      EXPECT_EQ(sum_of(packed, num_threads), once);
      EXPECT_EQ(sum_of(padded, num_threads), once);
    }
  });
}

TEST(SumOfSquares, NanAndInfinityComeThrough) {
  for_every_cpu_target([] {
    for (const int64_t position : {0, 3, 70000, 99999}) {
      Matrix x(1, 100000, 1.0);
      x(0, position) = std::numeric_limits<double>::quiet_NaN();
      EXPECT_TRUE(std::isnan(sum_of(FloatTensor(x))));
      x(0, position) = -std::numeric_limits<double>::infinity();
      EXPECT_TRUE(std::isinf(sum_of(FloatTensor(x))));
    }
    // Squares beyond fp32 are still finite.
    EXPECT_TRUE(close(sum_of(FloatTensor(Matrix(1, 3, 1e30))), 3e60, {.relative = 1e-6}));
  });
}

}  // namespace
}  // namespace red::ops
