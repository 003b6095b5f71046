#include "ops/split_norm.hpp"

#include <array>
#include <utility>

#include "ops/elementwise.hpp"
#include "support/compare.hpp"
#include "support/every_cpu_target.hpp"

namespace red::ops {
namespace {

using test::as_bf16;
using test::close;
using test::FloatTensor;
using test::for_every_cpu_target;
using test::Matrix;
using test::OwnedTensor;
using test::random_matrix;

constexpr float kEpsilon = 1e-6F;

/// By token: sum over columns of a b.
Matrix dots_of(const Matrix& a, const Matrix& b) {
  Matrix dots(a.rows, 1);
  for (int64_t i = 0; i < a.rows; ++i) {
    for (int64_t j = 0; j < a.cols; ++j) dots(i, 0) += a(i, j) * b(i, j);
  }
  return dots;
}

/// Columns cut in two, as two ranks have them, normalised and differentiated. `relative`: one rounding to T.
template <class T>
void check(int64_t rows, int64_t left, int64_t right, double relative) {
  Stream stream(2);
  const int64_t width = left + right;
  const Matrix x = as_bf16(random_matrix(rows, width, 1, 3.0)), dy = as_bf16(random_matrix(rows, width, 2));
  const OwnedTensor<T> y(x, 3), dx(dy, 1);
  const FloatTensor squares(rows, 1), part(rows, 1), inv_rms(rows, 1), dots(rows, 1);
  const std::pair<int64_t, int64_t> ranks[] = {{0, left}, {left, right}};
  const auto sum_over_ranks = [&](const Tensor& sum, const Tensor& a, const Tensor& b) {
    for (const auto& [begin, count] : ranks) {
      row_dots(stream, part, a.col_range(begin, count), b.col_range(begin, count));
      add(stream, sum, sum, part);
    }
  };
  sum_over_ranks(squares, y, y);
  for (const auto& [begin, count] : ranks)
    split_norm(stream, y.tensor().col_range(begin, count), inv_rms, squares, width, kEpsilon);
  sum_over_ranks(dots, dx, y);
  const Matrix stored = y.read();
  for (const auto& [begin, count] : ranks) {
    split_norm_backward(stream, dx.tensor().col_range(begin, count), y.tensor().col_range(begin, count),
                        inv_rms, dots, width);
  }
  const Matrix square_sums = dots_of(x, x), dot_sums = dots_of(dy, stored);
  Matrix expected = x, expected_dx = dy, expected_inverse(rows, 1);
  for (int64_t i = 0; i < rows; ++i) {
    const double inverse = 1.0 / std::sqrt(square_sums(i, 0) / static_cast<double>(width) + kEpsilon);
    expected_inverse(i, 0) = inverse;
    for (int64_t j = 0; j < width; ++j) {
      expected(i, j) *= inverse;
      expected_dx(i, j) = inverse * (dy(i, j) - stored(i, j) * dot_sums(i, 0) / static_cast<double>(width));
    }
  }
  // fp32: sums of up to 1,100 products and a few operations.
  EXPECT_TRUE(close(inv_rms.read(), expected_inverse, {.relative = 2e-6}));
  EXPECT_TRUE(close(stored, expected, {2e-6, relative}));
  EXPECT_TRUE(close(dx.read(), expected_dx, {2e-6, relative}));
  EXPECT_TRUE(y.padding_untouched() && dx.padding_untouched());
}

TEST(SplitNorm, ByHand) {
  Stream stream(1);
  const FloatTensor x(Matrix(1, 2, {3, 4})), squares(1, 1), inv_rms(1, 1);
  row_dots(stream, squares, x, x);
  EXPECT_EQ(squares.value(), 25.0);
  // The row has two more columns, of zeros, elsewhere: mean square 25 / 4.
  split_norm(stream, x, inv_rms, squares, 4, 0.0F);
  EXPECT_TRUE(close(x.read(), Matrix(1, 2, {1.2, 1.6}), {.relative = 2e-7}));
  EXPECT_TRUE(close(inv_rms.value(), 0.4, {.relative = 2e-7}));
}

TEST(SplitNorm, EqualsFloat64AtOddWidths) {
  for_every_cpu_target([] {
    for (const auto& [rows, left, right] : {std::array<int64_t, 3>{1, 1, 1}, {7, 33, 5}, {67, 64, 1027}}) {
      check<float>(rows, left, right, 2e-6);
      check<bf16>(rows, left, right, test::kBf16Rounding);
    }
  });
}

TEST(SplitNorm, RefusesOtherShapesAndTypes) {
  Stream stream(1);
  const FloatTensor x(3, 4), column(3, 1);
  EXPECT_THROW(row_dots(stream, column, x, FloatTensor(3, 5)), LogicError);
  EXPECT_THROW(row_dots(stream, column, x, test::Bf16Tensor(3, 4)), LogicError);
  EXPECT_THROW(split_norm(stream, x, column, FloatTensor(2, 1), 4, kEpsilon), LogicError);
}

}  // namespace
}  // namespace red::ops
