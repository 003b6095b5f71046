// How the CPU cuts a product into tiles, and what it takes from a library for each.
#include "ops/matmul_tiles.hpp"

#include <gtest/gtest.h>

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

/// A library's bf16 product: a plain loop.
void loop_bf16gemm(bool ta, bool tb, int64_t m, int64_t n, int64_t k, float alpha, const bf16* a, int64_t lda,
                   const bf16* b, int64_t ldb, float beta, float* c, int64_t ldc) {
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      float sum = 0.0F;
      for (int64_t p = 0; p < k; ++p)
        sum += (ta ? a[p * lda + i] : a[i * lda + p]) * (tb ? b[j * ldb + p] : b[p * ldb + j]);
      c[i * ldc + j] = alpha * sum + (beta == 0.0F ? 0.0F : beta * c[i * ldc + j]);
    }
  }
}

TEST(Matmul, TakesTheBf16ProductOfALibraryThatHasOne) {
  const GemmLibrary library{GemmChoice::plain, nullptr, "no fp32 product", loop_bf16gemm};
  const int64_t m = 300, n = 530, k = 70;
  const Matrix a = as_bf16(random_matrix(m, k, 7)), b = as_bf16(random_matrix(k, n, 8)),
               c = as_bf16(random_matrix(m, n, 9));
  const Matrix expected = reference_matmul(a, b, 0.5, 1.0, &c);
  std::vector<float> scratch(kBf16TileFloats, std::numeric_limits<float>::quiet_NaN());
  for (const Transpose ta : kTransposes) {
    for (const Transpose tb : kTransposes) {
      const auto given_a = stored<Bf16Tensor>(a, ta, 3), given_b = stored<Bf16Tensor>(b, tb, 2);
      const Bf16Tensor rounded(c, 3);
      multiply_bf16_tile(library,
                         {rounded, given_a, given_b, ta == Transpose::yes, tb == Transpose::yes, 0.5F, 1.0F},
                         {0, 0, m, n}, scratch.data());
      EXPECT_TRUE(close(rounded.read(), expected, bf16_tolerance(k)));
      EXPECT_TRUE(rounded.padding_untouched());
    }
  }
}

TEST(Matmul, CallsTheProgressHookBetweenTiles) {
  Stream stream(1);
  int64_t calls = 0;
  stream.set_progress_hook([&] { ++calls; });
  matmul(stream, FloatTensor(1024, 512), FloatTensor(1024, 256), Transpose::no, FloatTensor(256, 512),
         Transpose::no);
  EXPECT_EQ(calls, matmul_tiles(1024, 512, 256, false).count());
  EXPECT_GE(calls, 8);
}

TEST(MatmulTiles, CoverTheResultAndAreManyWhereTheWorkIsLarge) {
  for (const int64_t m : {1, 15, 64, 1000, 8192}) {
    for (const int64_t n : {1, 100, 4096, 32768}) {
      for (const int64_t k : {0, 1, 128, 16384}) {
        for (const bool bf16_arithmetic : {false, true}) {
          const MatmulTiles tiles = matmul_tiles(m, n, k, bf16_arithmetic);
          EXPECT_GE(tiles.rows * tiles.num_rows, m);
          EXPECT_LT(tiles.rows * (tiles.num_rows - 1), m);
          EXPECT_GE(tiles.cols * tiles.num_cols, n);
          EXPECT_LT(tiles.cols * (tiles.num_cols - 1), n);
        }
      }
    }
  }
  EXPECT_EQ(matmul_tiles(64, 64, 64, false).count(), 1);
  EXPECT_GE(matmul_tiles(256, 1024, 256, false).count(), 8);
  EXPECT_GE(matmul_tiles(1024, 1024, 4096, false).count(), 16);
  EXPECT_GE(matmul_tiles(128, 512, 8192, false).count(), 8);  // a weight gradient of a tiny model
  EXPECT_LT(matmul_tiles(2048, 1024, 8192, true).count(), matmul_tiles(2048, 1024, 8192, false).count());
}

}  // namespace
}  // namespace red::ops
