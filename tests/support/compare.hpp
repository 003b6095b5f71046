// Comparison of matrices that says which element is worst, and by how much.
#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>

#include "support/matrix.hpp"

namespace red::test {

/// An element may differ by absolute + relative x |expected|.
struct Tolerance {
  double absolute = 0.0;
  double relative = 0.0;
};

/// One rounding to bf16, which has 8 bits of precision: half a unit in the last place is at most 2^-8 of the
/// value; and a little, for what fp32 makes of an exact tie.
inline constexpr double kBf16Rounding = 0x1.01p-8;

/// EXPECT_TRUE(close(got, expected, {.absolute = 1e-6})): equal infinities and NaN where NaN is expected are
/// close.
inline testing::AssertionResult close(const Matrix& got, const Matrix& expected, Tolerance tolerance) {
  if (got.rows != expected.rows || got.cols != expected.cols) {
    return testing::AssertionFailure() << fmt::format("shape ({}, {}), expected ({}, {})", got.rows, got.cols,
                                                      expected.rows, expected.cols);
  }
  double worst = 0.0;
  int64_t worst_row = 0, worst_col = 0, num_wrong = 0;
  for (int64_t i = 0; i < got.rows; ++i) {
    for (int64_t j = 0; j < got.cols; ++j) {
      const double g = got(i, j), e = expected(i, j);
      if (g == e || (std::isnan(g) && std::isnan(e))) continue;
      const double excess = std::abs(g - e) / (tolerance.absolute + tolerance.relative * std::abs(e));
      if (excess <= 1.0) continue;
      ++num_wrong;
      // A NaN counts as the worst there is.
      if (num_wrong == 1 || !(excess <= worst)) worst = excess, worst_row = i, worst_col = j;
    }
  }
  if (num_wrong == 0) return testing::AssertionSuccess();
  const double g = got(worst_row, worst_col), e = expected(worst_row, worst_col);
  return testing::AssertionFailure() << fmt::format(
             "{} of {} elements differ too much; worst ({}, {}): got {:.9g}, expected {:.9g}, difference "
             "{:.3g}, "
             "allowed {:.3g}",
             num_wrong, got.values.size(), worst_row, worst_col, g, e, std::abs(g - e),
             tolerance.absolute + tolerance.relative * std::abs(e));
}

inline testing::AssertionResult close(double got, double expected, Tolerance tolerance) {
  return close(Matrix(1, 1, got), Matrix(1, 1, expected), tolerance);
}

}  // namespace red::test
