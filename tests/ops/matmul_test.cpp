#include "ops/matmul.hpp"

#include <iostream>
#include <limits>
#include <vector>

#include "ops/matmul_tiles.hpp"
#include "support/compare.hpp"
#include "support/reference_ops.hpp"

namespace red::ops {
namespace {

using test::close;
using test::FloatTensor;
using test::Matrix;
using test::random_matrix;
using test::reference_matmul;
using test::transposed;

constexpr Transpose kTransposes[] = {Transpose::no, Transpose::yes};

/// Every GEMM library that this machine has.
std::vector<GemmChoice> usable_libraries() {
  std::vector<GemmChoice> choices{GemmChoice::plain};
  for (const GemmChoice choice : {GemmChoice::openblas, GemmChoice::onednn}) {
    try {
      gemm_library(choice);
      choices.push_back(choice);
    } catch (const ConfigError& missing) {
      std::cout << missing.what() << "\n";
    }
  }
  return choices;
}

/// The stored form of an operand, with padded rows.
FloatTensor stored(const Matrix& m, Transpose transpose, int64_t padding) {
  return FloatTensor(transpose == Transpose::yes ? transposed(m) : m, padding);
}

/// fp32 sums of k products of N(0, 1): errors grow like sqrt(k) roundings of a value of about sqrt(k).
test::Tolerance tolerance(int64_t k) {
  return {.absolute = 3e-7 * static_cast<double>(k + 1)};
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

TEST(Matmul, CallsTheProgressHookBetweenTiles) {
  Stream stream(1);
  int64_t calls = 0;
  stream.set_progress_hook([&] { ++calls; });
  matmul(stream, FloatTensor(1024, 512), FloatTensor(1024, 256), Transpose::no, FloatTensor(256, 512),
         Transpose::no);
  EXPECT_EQ(calls, matmul_tiles(1024, 512, 256).count());
  EXPECT_GE(calls, 8);
}

TEST(Matmul, RefusesShapesThatDoNotFit) {
  Stream stream(1);
  EXPECT_THROW(
      matmul(stream, FloatTensor(2, 2), FloatTensor(2, 3), Transpose::no, FloatTensor(2, 2), Transpose::no),
      LogicError);
}

TEST(MatmulTiles, CoverTheResultAndAreManyWhereTheWorkIsLarge) {
  for (const int64_t m : {1, 15, 64, 1000, 8192}) {
    for (const int64_t n : {1, 100, 4096, 32768}) {
      for (const int64_t k : {0, 1, 128, 16384}) {
        const MatmulTiles tiles = matmul_tiles(m, n, k);
        EXPECT_GE(tiles.rows * tiles.num_rows, m);
        EXPECT_LT(tiles.rows * (tiles.num_rows - 1), m);
        EXPECT_GE(tiles.cols * tiles.num_cols, n);
        EXPECT_LT(tiles.cols * (tiles.num_cols - 1), n);
      }
    }
  }
  EXPECT_EQ(matmul_tiles(64, 64, 64).count(), 1);
  EXPECT_GE(matmul_tiles(256, 1024, 256).count(), 8);
  EXPECT_GE(matmul_tiles(1024, 1024, 4096).count(), 16);
  EXPECT_GE(matmul_tiles(128, 512, 8192).count(), 8);  // a weight gradient of a tiny model
}

}  // namespace
}  // namespace red::ops
