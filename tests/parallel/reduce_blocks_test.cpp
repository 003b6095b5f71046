// Sums of bf16 are vectorised; bit for bit they are those of the scalar type, whatever the numbers are.
#include "parallel/reduce_blocks.hpp"

#include <gtest/gtest.h>

#include <bit>
#include <limits>
#include <vector>

#include "base/philox.hpp"

namespace red::parallel {
namespace {

/// Numbers of all kinds: NaN, infinities, subnormals, and what rounds at a tie or over the largest number.
std::vector<bf16> numbers(int rank, int64_t count) {
  const float limits[] = {0.0F,
                          -0.0F,
                          std::numeric_limits<float>::infinity(),
                          -std::numeric_limits<float>::infinity(),
                          std::numeric_limits<float>::quiet_NaN(),
                          1e-40F,
                          -1e-40F,
                          3.3e38F,
                          -3.3e38F,
                          1.0F,
                          0x1.0p-8F,
                          0x1.02p-8F};
  std::vector<bf16> x;
  for (int64_t i = 0; i < count; ++i) {
    const PhiloxBlock bits = philox(rank + 1, i);
    const float any = std::bit_cast<float>(bits[0]);
    x.push_back(bf16(bits[1] % 2 == 0 ? limits[bits[2] % std::size(limits)] : any));
  }
  return x;
}

class SumsOfBf16 : public testing::TestWithParam<int> {};

INSTANTIATE_TEST_SUITE_P(Ranks, SumsOfBf16, testing::Values(2, 3, 5));

TEST_P(SumsOfBf16, AreThoseOfTheScalarType) {
  const int ranks = GetParam();
  for (const int64_t count : {0, 1, 7, 16, 33, 1000}) {
    std::vector<std::vector<bf16>> x;
    std::vector<const std::byte*> blocks;
    for (int rank = 0; rank < ranks; ++rank) x.push_back(numbers(rank, count));
    for (const std::vector<bf16>& block : x)
      blocks.push_back(reinterpret_cast<const std::byte*>(block.data()));
    std::vector<bf16> expected;
    for (int64_t i = 0; i < count; ++i) {
      float sum = x[0][i];
      for (int rank = 1; rank < ranks; ++rank) sum += static_cast<float>(x[rank][i]);
      expected.push_back(bf16(sum));
    }
    std::vector<bf16>& out = x[ranks - 1];  // in the place of one of them
    reduce_blocks(DType::bf16, ReduceOp::sum, reinterpret_cast<std::byte*>(out.data()), blocks, count);
    for (int64_t i = 0; i < count; ++i) {
      const float got = out[i], want = expected[i];
      if (want != want) {
        EXPECT_NE(got, got) << i;  // which of two NaN wins is the processor's choice
      } else {
        EXPECT_EQ(std::bit_cast<uint32_t>(got), std::bit_cast<uint32_t>(want)) << i << " of " << count;
      }
    }
  }
}

}  // namespace
}  // namespace red::parallel
