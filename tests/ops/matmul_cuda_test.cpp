// What only cuBLASLt's products have: TF32, and the file of their fastest algorithms.
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <string>

#include "ops/matmul.hpp"
#include "support/compare.hpp"
#include "support/reference_ops.hpp"
#include "support/temporary_folder.hpp"

namespace red::ops {
namespace {

using test::FloatTensor;
using test::Matrix;

double product_of(Stream& stream, double a, double b) {
  const FloatTensor c(1, 1);
  matmul(stream, c, FloatTensor(Matrix(1, 1, a)), Transpose::no, FloatTensor(Matrix(1, 1, b)), Transpose::no);
  return c.value();
}

TEST(MatmulCuda, Tf32IsChosenByNameAlone) {
  const double a = 1.0 + 0x1p-12;  // one bit more than TF32 keeps
  Stream exact(1), tf32(1, 0, GemmChoice::tf32);
  EXPECT_EQ(product_of(exact, a, 1.0), a);
  EXPECT_EQ(product_of(tf32, a, 1.0), 1.0);
  tf32.use_gemm(gemm_library());
  EXPECT_EQ(product_of(tf32, a, 1.0), a);
}

TEST(MatmulCuda, Tf32IsCloseToFloat64) {
  Stream stream(1, 0, GemmChoice::tf32);
  const Matrix a = test::random_matrix(33, 65, 1), b = test::random_matrix(65, 17, 2);
  const FloatTensor c(33, 17);
  matmul(stream, c, FloatTensor(a), Transpose::no, FloatTensor(b), Transpose::no);
  // Both factors of 65 products of N(0, 1) are rounded to 11 bits: errors grow like 2^-11 sqrt(65), to five
  // times that.
  EXPECT_TRUE(test::close(c.read(), test::reference_matmul(a, b), {.absolute = 2e-2}));
}

// Rounded once, 256 + 1 + 1 is 258; halves of the sum that are rounded first give 256.
TEST(MatmulCuda, PartsOfABf16SumAreNotRounded) {
  Stream stream(1);
  Matrix a(1, 4);
  a(0, 0) = 256.0;
  a(0, 1) = a(0, 2) = 1.0;
  const test::Bf16Tensor c(1, 1);
  matmul(stream, c, test::Bf16Tensor(a), Transpose::no, test::Bf16Tensor(Matrix(4, 1, 1.0)), Transpose::no);
  EXPECT_EQ(c.value(), 258.0);
}

int num_lines(const std::filesystem::path& file) {
  std::ifstream in(file);
  int count = 0;
  for (std::string line; std::getline(in, line);) ++count;
  return count;
}

TEST(MatmulCuda, AlgorithmsAreLookedForOnceAShape) {
  const test::TemporaryFolder folder;
  const std::filesystem::path file = folder.path() / "algorithms.txt";
  setenv("RED_GEMM_CACHE", file.c_str(), 1);
  constexpr int head = 2;
  Stream first(1), second(1);
  EXPECT_EQ(product_of(first, 2.0, 3.0), 6.0);
  EXPECT_EQ(num_lines(file), head + 1);
  const auto written = std::filesystem::last_write_time(file);
  EXPECT_EQ(product_of(first, 2.0, 4.0), 8.0);
  EXPECT_EQ(product_of(second, 2.0, 5.0), 10.0);
  EXPECT_EQ(num_lines(file), head + 1);
  EXPECT_EQ(std::filesystem::last_write_time(file), written);
  const FloatTensor c(2, 3);
  matmul(second, c, FloatTensor(2, 5), Transpose::no, FloatTensor(5, 3), Transpose::no);
  EXPECT_EQ(num_lines(file), head + 2);
  setenv("RED_GEMM_CACHE", "off", 1);
}

}  // namespace
}  // namespace red::ops
