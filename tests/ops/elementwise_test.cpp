#include "ops/elementwise.hpp"

#include "support/compare.hpp"
#include "support/every_cpu_target.hpp"

namespace red::ops {
namespace {

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

TEST(Elementwise, RefusesOtherShapes) {
  Stream stream(1);
  EXPECT_THROW(copy(stream, FloatTensor(2, 3), FloatTensor(3, 2)), LogicError);
  EXPECT_THROW(add(stream, FloatTensor(2, 3), FloatTensor(2, 3), FloatTensor(2, 2)), LogicError);
}

}  // namespace
}  // namespace red::ops
