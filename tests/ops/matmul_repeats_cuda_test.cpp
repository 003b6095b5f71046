// A program of its own, because the choice is made once.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

#include "device/gemm_measuring.hpp"
#include "ops/matmul.hpp"
#include "support/compare.hpp"
#include "support/reference_ops.hpp"
#include "support/temporary_folder.hpp"

namespace red::ops {
namespace {

TEST(MatmulRepeats, NoAlgorithmIsMeasuredOrRemembered) {
  const test::TemporaryFolder folder;
  const std::filesystem::path file = folder.path() / "algorithms.txt";
  setenv("RED_GEMM_CACHE", file.c_str(), 1);
  choose_without_measuring();
  Stream stream(1);
  const test::Matrix a = test::random_matrix(5, 7, 1), b = test::random_matrix(7, 3, 2);
  const test::FloatTensor c(5, 3);
  matmul(stream, c, test::FloatTensor(a), Transpose::no, test::FloatTensor(b), Transpose::no);
  // Products of N(0, 1) in fp32.
  EXPECT_TRUE(test::close(c.read(), test::reference_matmul(a, b), {.absolute = 1e-5}));
  EXPECT_FALSE(std::filesystem::exists(file));
}

}  // namespace
}  // namespace red::ops
