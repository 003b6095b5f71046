#include "ops/matmul.hpp"

#include <iostream>
#include <limits>
#include <vector>

#include "ops/matmul_forms.hpp"
#include "support/compare.hpp"
#include "support/reference_ops.hpp"

namespace red::ops {
namespace {

using test::as_bf16;
using test::Bf16Tensor;
using test::close;
using test::FloatTensor;
using test::Matrix;
using test::random_matrix;
using test::reference_matmul;

/// Every GEMM library that this program has and this machine can use.
std::vector<GemmChoice> usable_libraries() {
  std::vector<GemmChoice> choices;
  for (const char* name : {"plain", "openblas", "onednn"}) {
    try {
      const GemmChoice choice = parse_gemm_choice(name);
      gemm_library(choice);
      choices.push_back(choice);
    } catch (const ConfigError& missing) {
      std::cout << missing.what() << "\n";
    }
  }
  // On a GPU there is one.
  if (choices.empty()) choices.push_back(GemmChoice::automatic);
  return choices;
}

TEST(Matmul, ByHand) {
  Stream stream(1);
  const FloatTensor c(2, 2);
  matmul(stream, c, FloatTensor(Matrix(2, 3, {1, 2, 3, 4, 5, 6})), Transpose::no,
         FloatTensor(Matrix(3, 2, {7, 8, 9, 10, 11, 12})), Transpose::no);
  EXPECT_TRUE(close(c.read(), Matrix(2, 2, {58, 64, 139, 154}), {}));
}

TEST(Matmul, EqualsFloat64AtOddSizesInAllForms) {
  constexpr int64_t shapes[][3] = {{1, 1, 1},    {3, 5, 7},      {17, 1, 33},    {1, 65, 9},
                                   {65, 67, 63}, {129, 31, 257}, {300, 301, 77}, {515, 130, 129}};
  for (const GemmChoice choice : usable_libraries()) {
    Stream stream(2, 1 << 20, choice);
    for (const auto& [m, n, k] : shapes) {
      const Matrix a = random_matrix(m, k, 1), b = random_matrix(k, n, 2), c = random_matrix(m, n, 3);
      for (const Transpose ta : kTransposes) {
        for (const Transpose tb : kTransposes) {
          const FloatTensor y(c, 5);
          matmul(stream, y, stored(a, ta, 3), ta, stored(b, tb, 2), tb, 0.5F, 1.0F);
          EXPECT_TRUE(close(y.read(), reference_matmul(a, b, 0.5, 1.0, &c), tolerance(k)))
              << m << " " << n << " " << k << " " << static_cast<bool>(ta) << static_cast<bool>(tb);
          EXPECT_TRUE(y.padding_untouched());
        }
      }
    }
  }
}

TEST(Matmul, IgnoresOldContentsWhenBetaIsZero) {
  for (const GemmChoice choice : usable_libraries()) {
    Stream stream(1, 1 << 20, choice);
    const Matrix a = random_matrix(33, 9, 1), b = random_matrix(9, 35, 2);
    const FloatTensor c(Matrix(33, 35, std::numeric_limits<double>::quiet_NaN()));
    matmul(stream, c, FloatTensor(a), Transpose::no, FloatTensor(b), Transpose::no);
    EXPECT_TRUE(close(c.read(), reference_matmul(a, b), tolerance(9)));
  }
}

TEST(Matmul, EmptySizes) {
  for (const GemmChoice choice : usable_libraries()) {
    Stream stream(2, 1 << 20, choice);
    matmul(stream, FloatTensor(0, 3), FloatTensor(0, 2), Transpose::no, FloatTensor(2, 3), Transpose::no);
    matmul(stream, FloatTensor(3, 0), FloatTensor(3, 2), Transpose::no, FloatTensor(2, 0), Transpose::no);
    const FloatTensor zero(Matrix(2, 3, std::numeric_limits<double>::quiet_NaN()));
    matmul(stream, zero, FloatTensor(2, 0), Transpose::no, FloatTensor(0, 3), Transpose::no);
    EXPECT_TRUE(close(zero.read(), Matrix(2, 3, 0.0), {}));
    const FloatTensor kept(Matrix(2, 3, 4.0), 1);
    matmul(stream, kept, FloatTensor(2, 0), Transpose::no, FloatTensor(0, 3), Transpose::no, 1.0F, 0.5F);
    EXPECT_TRUE(close(kept.read(), Matrix(2, 3, 2.0), {}));
    EXPECT_TRUE(kept.padding_untouched());
  }
}

TEST(Matmul, BitEqualForAnyNumberOfThreads) {
  constexpr int64_t shapes[][3] = {{700, 300, 129}, {128, 96, 2049}, {33, 1500, 65}};
  for (const GemmChoice choice : usable_libraries()) {
    for (const auto& [m, n, k] : shapes) {
      const Matrix a = random_matrix(m, k, 1), b = random_matrix(k, n, 2);
      std::vector<float> first;
      for (const int num_threads : {1, 2, 3}) {
        Stream stream(num_threads, 0, choice);
        const FloatTensor c(m, n);
        matmul(stream, c, FloatTensor(a), Transpose::no, FloatTensor(b), Transpose::no);
        if (num_threads == 1) first = c.elements();
        EXPECT_EQ(c.elements(), first) << num_threads << " threads, " << name_of(choice);
      }
    }
  }
}

// Smaller than a block of an fp32 library's bf16 product, a block and more along each dim, several.
constexpr int64_t kBf16Shapes[][3] = {{1, 1, 1},     {3, 5, 7},     {17, 1, 33},
                                      {1, 65, 9},    {65, 67, 63},  {129, 31, 257},
                                      {300, 33, 77}, {35, 700, 63}, {9, 70, 1100}};

TEST(Matmul, Bf16EqualsFloat64AtOddSizesInAllForms) {
  for (const GemmChoice choice : usable_libraries()) {
    Stream stream(2, matmul_scratch_bytes(2, DType::bf16), choice);
    for (const auto& [m, n, k] : kBf16Shapes) {
      const Matrix a = as_bf16(random_matrix(m, k, 4)), b = as_bf16(random_matrix(k, n, 5)),
                   c = as_bf16(random_matrix(m, n, 6));
      for (const Transpose ta : kTransposes) {
        for (const Transpose tb : kTransposes) {
          const auto given_a = stored<Bf16Tensor>(a, ta, 3), given_b = stored<Bf16Tensor>(b, tb, 2);
          const FloatTensor sums(c, 5);
          const Bf16Tensor rounded(c, 4), from_fp32(c, 1);
          matmul(stream, sums, given_a, ta, given_b, tb, 0.5F, 1.0F);
          matmul(stream, rounded, given_a, ta, given_b, tb, 0.5F, 1.0F);
          matmul(stream, from_fp32, stored(a, ta, 1), ta, stored(b, tb, 1), tb, 0.5F, 1.0F);
          const Matrix expected = reference_matmul(a, b, 0.5, 1.0, &c);
          EXPECT_TRUE(close(sums.read(), expected, tolerance(k))) << m << " " << n << " " << k;
          EXPECT_TRUE(close(rounded.read(), expected, bf16_tolerance(k))) << m << " " << n << " " << k;
          EXPECT_TRUE(close(from_fp32.read(), expected, bf16_tolerance(k))) << m << " " << n << " " << k;
          EXPECT_TRUE(sums.padding_untouched() && rounded.padding_untouched() &&
                      from_fp32.padding_untouched());
        }
      }
    }
    EXPECT_EQ(stream.scratch().used(), 0U);
  }
}

TEST(Matmul, Bf16ResultsAreRoundedOnce) {
  // 1 + 600 2^-10: what a sum that is rounded on the way never reaches, since 1 + 2^-10 is 1 again.
  for (const GemmChoice choice : usable_libraries()) {
    Stream stream(1, matmul_scratch_bytes(1, DType::bf16), choice);
    const Bf16Tensor c(Matrix(2, 3, 1.0)), a(Matrix(2, 600, 0x1p-5)), b(Matrix(600, 3, 0x1p-5));
    matmul(stream, c, a, Transpose::no, b, Transpose::no, 1.0F, 1.0F);
    EXPECT_TRUE(close(c.read(), Matrix(2, 3, bf16(1.0F + 600 * 0x1p-10F)), {}));
  }
}

TEST(Matmul, Bf16IgnoresOldContentsWhenBetaIsZeroAndTakesEmptySums) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  for (const GemmChoice choice : usable_libraries()) {
    Stream stream(1, matmul_scratch_bytes(1, DType::bf16), choice);
    const Matrix a = as_bf16(random_matrix(33, 1030, 1)), b = as_bf16(random_matrix(1030, 35, 2));
    const Bf16Tensor c(Matrix(33, 35, nan)), none(Matrix(2, 3, nan)), half(Matrix(2, 3, 4.0), 1);
    matmul(stream, c, Bf16Tensor(a), Transpose::no, Bf16Tensor(b), Transpose::no);
    EXPECT_TRUE(close(c.read(), reference_matmul(a, b), bf16_tolerance(1030)));
    matmul(stream, none, Bf16Tensor(2, 0), Transpose::no, Bf16Tensor(0, 3), Transpose::no);
    EXPECT_TRUE(close(none.read(), Matrix(2, 3, 0.0), {}));
    matmul(stream, half, Bf16Tensor(2, 0), Transpose::no, Bf16Tensor(0, 3), Transpose::no, 1.0F, 0.5F);
    EXPECT_TRUE(close(half.read(), Matrix(2, 3, 2.0), {}));
    EXPECT_TRUE(half.padding_untouched());
  }
}

TEST(Matmul, Bf16BitEqualForAnyNumberOfThreads) {
  constexpr int64_t shapes[][3] = {{700, 300, 129}, {128, 96, 2049}, {33, 1500, 65}};
  for (const GemmChoice choice : usable_libraries()) {
    for (const auto& [m, n, k] : shapes) {
      const Bf16Tensor a(random_matrix(m, k, 1)), b(random_matrix(k, n, 2));
      std::vector<double> first_sums, first_rounded;
      for (const int num_threads : {1, 2, 3}) {
        Stream stream(num_threads, matmul_scratch_bytes(num_threads, DType::bf16), choice);
        const FloatTensor sums(m, n);
        const Bf16Tensor rounded(m, n);
        matmul(stream, sums, a, Transpose::no, b, Transpose::no);
        matmul(stream, rounded, a, Transpose::no, b, Transpose::no);
        if (num_threads == 1) first_sums = sums.read().values, first_rounded = rounded.read().values;
        EXPECT_EQ(sums.read().values, first_sums) << num_threads << " threads, " << name_of(choice);
        EXPECT_EQ(rounded.read().values, first_rounded) << num_threads << " threads, " << name_of(choice);
        // The same sums, then rounded.
        if (!stream.gemm().has_bf16_arithmetic()) {
          EXPECT_EQ(as_bf16(sums.read()).values, first_rounded);
        }
      }
    }
  }
}

TEST(Matmul, RefusesShapesThatDoNotFit) {
  Stream stream(1);
  EXPECT_THROW(
      matmul(stream, FloatTensor(2, 2), FloatTensor(2, 3), Transpose::no, FloatTensor(2, 2), Transpose::no),
      LogicError);
  EXPECT_THROW(
      matmul(stream, FloatTensor(2, 2), Bf16Tensor(2, 2), Transpose::no, FloatTensor(2, 2), Transpose::no),
      LogicError);
}

}  // namespace
}  // namespace red::ops
