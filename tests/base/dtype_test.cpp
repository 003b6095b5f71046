// Sizes and names of element types.
#include "base/dtype.hpp"

#include <gtest/gtest.h>

#include <set>

namespace red::test {
namespace {

TEST(DTypes, HaveTheSizesOfTheirCppTypes) {
  EXPECT_EQ(size_of(dtype_of<float>()), sizeof(float));
  EXPECT_EQ(size_of(dtype_of<double>()), sizeof(double));
  EXPECT_EQ(size_of(dtype_of<int32_t>()), sizeof(int32_t));
  EXPECT_EQ(size_of(dtype_of<uint8_t>()), sizeof(uint8_t));
}

TEST(DTypes, AreKnownByNamesOfTheirOwn) {
  const std::set<std::string_view> names = {name_of(DType::fp32), name_of(DType::fp64), name_of(DType::int32),
                                            name_of(DType::uint8)};
  EXPECT_EQ(names, (std::set<std::string_view>{"fp32", "fp64", "int32", "uint8"}));
}

}  // namespace
}  // namespace red::test
