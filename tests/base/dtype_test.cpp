// Sizes and names of element types.
#include "base/dtype.hpp"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <set>

namespace red::test {
namespace {

TEST(DTypes, HaveTheSizesOfTheirCppTypes) {
  EXPECT_EQ(size_of(dtype_of<float>()), sizeof(float));
  EXPECT_EQ(size_of(dtype_of<double>()), sizeof(double));
  EXPECT_EQ(size_of(dtype_of<int32_t>()), sizeof(int32_t));
  EXPECT_EQ(size_of(dtype_of<uint8_t>()), sizeof(uint8_t));
  EXPECT_EQ(size_of(dtype_of<bf16>()), sizeof(bf16));
}

TEST(DTypes, AreKnownByNamesOfTheirOwn) {
  const std::set<std::string_view> names = {name_of(DType::fp32), name_of(DType::fp64), name_of(DType::int32),
                                            name_of(DType::uint8), name_of(DType::bf16)};
  EXPECT_EQ(names, (std::set<std::string_view>{"fp32", "fp64", "int32", "uint8", "bf16"}));
}

float from_bits(uint32_t bits) {
  return std::bit_cast<float>(bits);
}

TEST(Bf16, ByHand) {
  EXPECT_EQ(bf16(1.0F).bits, 0x3F80);
  EXPECT_EQ(bf16(-2.0F).bits, 0xC000);
  EXPECT_EQ(bf16(0.0F).bits, 0);
  EXPECT_EQ(bf16(-0.0F).bits, 0x8000);
  EXPECT_EQ(bf16(1.0F + 0x1p-8F).bits, 0x3F80);             // a tie, down to even
  EXPECT_EQ(bf16(1.0F + 3 * 0x1p-8F).bits, 0x3F82);         // a tie, up to even
  EXPECT_EQ(bf16(1.0F + 0x1p-8F + 0x1p-23F).bits, 0x3F81);  // just above the tie
  EXPECT_EQ(bf16(from_bits(0x3FFF8000)).bits, 0x4000);      // carries into the exponent
}

TEST(Bf16, EdgesOfTheRange) {
  constexpr float infinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(bf16(infinity).bits, 0x7F80);
  EXPECT_EQ(bf16(-infinity).bits, 0xFF80);
  EXPECT_EQ(bf16(from_bits(0x7F7F7FFF)).bits, 0x7F7F);  // rounds to the largest number
  EXPECT_EQ(bf16(from_bits(0x7F7F8000)).bits, 0x7F80);  // a tie between it and infinity
  EXPECT_EQ(bf16(std::numeric_limits<float>::denorm_min()).bits, 0);
  EXPECT_EQ(bf16(from_bits(0x00008001)).bits, 1);  // denormal numbers round as others do
  EXPECT_EQ(bf16(from_bits(0x007FFFFF)).bits, 0x0080);
  // Quiet, signalling and the NaN that a carry would turn into zero.
  for (const uint32_t nan : {0x7FC00000U, 0x7F800001U, 0xFF800001U, 0x7FFFFFFFU, 0xFFFFFFFFU}) {
    EXPECT_TRUE(std::isnan(static_cast<float>(bf16(from_bits(nan))))) << nan;
  }
}

TEST(Bf16, EveryValueComesBack) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float value = from_bits(bits << 16);
    if (std::isnan(value)) continue;
    EXPECT_EQ(bf16(value).bits, bits);
    EXPECT_EQ(std::bit_cast<uint32_t>(static_cast<float>(bf16(value))), bits << 16);
  }
}

TEST(Bf16, RoundsToTheNearest) {
  for (uint32_t upper = 0; upper < 0x7F7F; ++upper) {
    const double below = from_bits(upper << 16), above = from_bits((upper + 1) << 16);
    for (const uint32_t lower : {1U, 0x1234U, 0x7FFFU, 0x8000U, 0x8001U, 0xFFFFU}) {
      const float x = from_bits(upper << 16 | lower);
      const double down = x - below, up = above - x;
      const uint32_t expected = down < up || (down == up && upper % 2 == 0) ? upper : upper + 1;
      EXPECT_EQ(bf16(x).bits, expected) << x;
      EXPECT_EQ(bf16(-x).bits, expected | 0x8000U) << x;
    }
  }
}

}  // namespace
}  // namespace red::test
