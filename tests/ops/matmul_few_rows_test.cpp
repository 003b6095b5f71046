#include "ops/matmul_few_rows.hpp"

#include <limits>
#include <numeric>
#include <vector>

#include "support/compare.hpp"
#include "support/every_bf16_arithmetic.hpp"
#include "support/every_cpu_target.hpp"
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
using test::transposed;

constexpr Transpose kTransposes[] = {Transpose::no, Transpose::yes};
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

/// As matmul_test.cpp has it: fp32 sums of k products of N(0, 1).
test::Tolerance tolerance(int64_t k) {
  return {.absolute = 3e-7 * static_cast<double>(k + 1)};
}
test::Tolerance bf16_tolerance(int64_t k) {
  return {tolerance(k).absolute, test::kBf16Rounding};
}

/// b as it is stored, with padded rows.
template <class OwnedTensor>
OwnedTensor stored(const Matrix& b, Transpose transpose) {
  return OwnedTensor(transpose == Transpose::yes ? transposed(b) : b, 3);
}

/// All of them; on other backends, which may run in a simulation, those around which kernels change what they
/// do.
std::vector<int64_t> row_counts() {
  if (!test::on_cpu()) return {1, 4, 5, 9, kFewRows};
  std::vector<int64_t> counts(kFewRows);
  std::iota(counts.begin(), counts.end(), 1);
  return counts;
}

TEST(MatmulFewRows, ByHand) {
  Stream stream(1);
  const FloatTensor a(Matrix(2, 3, {1, 2, 3, 4, 5, 6})), c(2, 2);
  const Matrix b(3, 2, {7, 8, 9, 10, 11, 12});
  for (const Transpose tb : kTransposes) {
    matmul_few_rows(stream, c, a, stored<FloatTensor>(b, tb), tb);
    EXPECT_TRUE(close(c.read(), Matrix(2, 2, {58, 64, 139, 154}), {}));
    matmul_few_rows(stream, c, a, stored<FloatTensor>(b, tb), tb, 0.5F);
    EXPECT_TRUE(close(c.read(), Matrix(2, 2, {29, 32, 69.5, 77}), {}));
  }
}

// Smaller than a vector, a vector and more, a strip and more; whole panels, a panel and more; k in parts.
constexpr int64_t kColsAndDepths[][2] = {{1, 1},     {7, 5},     {1, 33},   {33, 16},
                                         {65, 31},   {130, 77},  {321, 65}, {259, 48},
                                         {2100, 19}, {600, 130}, {40, 700}, {1030, 512}};

/// The largest of them takes time, in float64: 1, 6, 11 and 16 rows of it.
bool worth_trying(int64_t m, int64_t n, int64_t k) {
  return n * k < 100'000 || m % 5 == 1;
}

TEST(MatmulFewRows, EqualsFloat64AtOddSizesInAllForms) {
  test::for_every_cpu_target([] {
    Stream stream(2);
    for (const int64_t m : row_counts()) {
      for (const auto& [n, k] : kColsAndDepths) {
        if (!worth_trying(m, n, k)) continue;
        for (const Transpose tb : kTransposes) {
          const Matrix a = random_matrix(m, k, 1), b = random_matrix(k, n, 2);
          const FloatTensor c(Matrix(m, n, kNan), 5);
          matmul_few_rows(stream, c, FloatTensor(a, 2), stored<FloatTensor>(b, tb), tb, 0.5F);
          EXPECT_TRUE(close(c.read(), reference_matmul(a, b, 0.5), tolerance(k)))
              << m << " " << n << " " << k;
          EXPECT_TRUE(c.padding_untouched());
        }
      }
    }
  });
}

void expect_bf16_product(Stream& stream, int64_t m, int64_t n, int64_t k, Transpose tb) {
  const Matrix a = as_bf16(random_matrix(m, k, 3)), b = as_bf16(random_matrix(k, n, 4));
  const Bf16Tensor given_a(a, 1), rounded(Matrix(m, n, kNan), 3);
  const auto given_b = stored<Bf16Tensor>(b, tb);
  const FloatTensor sums(Matrix(m, n, kNan), 2);
  matmul_few_rows(stream, sums, given_a, given_b, tb, 0.5F);
  matmul_few_rows(stream, rounded, given_a, given_b, tb, 0.5F);
  const Matrix expected = reference_matmul(a, b, 0.5);
  EXPECT_TRUE(close(sums.read(), expected, tolerance(k))) << m << " " << n << " " << k;
  EXPECT_TRUE(close(rounded.read(), expected, bf16_tolerance(k))) << m << " " << n << " " << k;
  EXPECT_EQ(as_bf16(sums.read()).values, rounded.read().values);  // rounded once
  EXPECT_TRUE(sums.padding_untouched() && rounded.padding_untouched());
}

TEST(MatmulFewRows, Bf16EqualsFloat64AtOddSizesInAllForms) {
  test::for_every_cpu_target([] {
    test::for_every_bf16_arithmetic(2, [](Stream& stream) {
      for (const int64_t m : row_counts()) {
        for (const auto& [n, k] : kColsAndDepths) {
          if (!worth_trying(m, n, k)) continue;
          for (const Transpose tb : kTransposes) expect_bf16_product(stream, m, n, k, tb);
        }
      }
    });
  });
}

template <class OwnedTensor>
void expect_rows_alone(Stream& stream, const Matrix& a, const Matrix& b, Transpose tb) {
  const int64_t n = b.cols;
  const OwnedTensor all(kFewRows, n), given_a(a), given_b = stored<OwnedTensor>(b, tb);
  Stream one(1);
  one.use_gemm(stream.gemm());
  matmul_few_rows(one, all, given_a, given_b, tb);
  const bool by_bf16 = all.tensor().dtype == DType::bf16 && stream.gemm().has_bf16_arithmetic();
  for (int64_t m = by_bf16 ? kFewRowsInFp32 + 1 : 1; m <= kFewRows; ++m) {
    const OwnedTensor some(m, n);
    const Tensor last = static_cast<const Tensor&>(given_a).row_range(kFewRows - m, m);
    matmul_few_rows(stream, some, last, given_b, tb);
    const auto whole = all.elements(), part = some.elements();
    EXPECT_TRUE(std::equal(part.begin(), part.end(), whole.end() - m * n)) << m << " rows";
  }
}

TEST(MatmulFewRows, ARowsBitsDependOnNeitherOtherRowsNorThreads) {
  test::for_every_cpu_target([] {
    const Matrix a = random_matrix(kFewRows, 203, 5), b = random_matrix(203, 1031, 6);
    for (const int threads : {1, 2, 3}) {
      test::for_every_bf16_arithmetic(threads, [&](Stream& stream) {
        for (const Transpose tb : kTransposes) {
          expect_rows_alone<FloatTensor>(stream, a, b, tb);
          expect_rows_alone<Bf16Tensor>(stream, as_bf16(a), as_bf16(b), tb);
        }
      });
    }
  });
}

TEST(MatmulFewRows, EmptySizes) {
  Stream stream(2);
  matmul_few_rows(stream, FloatTensor(0, 3), FloatTensor(0, 2), FloatTensor(2, 3), Transpose::no);
  matmul_few_rows(stream, FloatTensor(3, 0), FloatTensor(3, 2), FloatTensor(2, 0), Transpose::no);
  const FloatTensor zero(Matrix(2, 3, kNan)), also(Matrix(2, 3, kNan));
  matmul_few_rows(stream, zero, FloatTensor(2, 0), FloatTensor(0, 3), Transpose::no);
  matmul_few_rows(stream, also, FloatTensor(2, 0), FloatTensor(3, 0), Transpose::yes);
  EXPECT_TRUE(close(zero.read(), Matrix(2, 3, 0.0), {}));
  EXPECT_TRUE(close(also.read(), Matrix(2, 3, 0.0), {}));
  const Bf16Tensor many(Matrix(kFewRows, 3, kNan));
  matmul_few_rows(stream, many, Bf16Tensor(kFewRows, 0), Bf16Tensor(0, 3), Transpose::no);
  EXPECT_TRUE(close(many.read(), Matrix(kFewRows, 3, 0.0), {}));
}

TEST(MatmulFewRows, CallsTheProgressHookBetweenStrips) {
  if (!test::on_cpu()) GTEST_SKIP() << "a GPU needs no help of the calling thread";
  Stream stream(1);
  int64_t calls = 0;
  stream.set_progress_hook([&] { ++calls; });
  matmul_few_rows(stream, FloatTensor(2, 4096), FloatTensor(2, 64), FloatTensor(64, 4096), Transpose::no);
  EXPECT_EQ(calls, 4);
}

TEST(MatmulFewRows, RefusesWhatItCannotDo) {
  Stream stream(1);
  const auto product = [&](const Tensor& c, const Tensor& a, const Tensor& b) {
    matmul_few_rows(stream, c, a, b, Transpose::no);
  };
  EXPECT_THROW(product(FloatTensor(2, 2), FloatTensor(2, 3), FloatTensor(2, 2)), LogicError);
  EXPECT_THROW(product(FloatTensor(2, 2), Bf16Tensor(2, 2), FloatTensor(2, 2)), LogicError);
  EXPECT_THROW(product(FloatTensor(17, 2), FloatTensor(17, 2), FloatTensor(2, 2)), LogicError);
}

TEST(MatmulFewRows, PayForFewRowsAlone) {
  for (const DType dtype : {DType::fp32, DType::bf16}) {
    EXPECT_TRUE(few_rows_pay(2, dtype));
    EXPECT_FALSE(few_rows_pay(kFewRows + 1, dtype));
  }
}

}  // namespace
}  // namespace red::ops
