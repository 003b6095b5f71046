// What ops are timed on: numbers of both signs that differ, to the last element, whatever its size.
#include "launch/op_memory.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "base/bf16.hpp"
#include "support/backend.hpp"

namespace red::launch {
namespace {

template <class T>
std::vector<float> values_of(const Tensor& t) {
  const std::vector<T> elements = test::elements_of<T>(t);
  return {elements.begin(), elements.end()};
}

/// Of each stretch that long; how many numbers differ in it.
template <class T>
void expect_spread(int64_t rows, int64_t cols, DType dtype, std::size_t num_different) {
  OpMemory count;
  count.tensor(rows, cols, dtype);
  Stream stream(2);
  OpMemory memory(stream, count.peak());
  const std::vector<float> values = values_of<T>(memory.tensor(rows, cols, dtype));
  const std::size_t stretch = std::min<std::size_t>(values.size(), 20000);
  for (std::size_t at = 0; at + stretch <= values.size(); at += stretch) {
    const auto begin = values.begin() + static_cast<std::ptrdiff_t>(at),
               end = begin + static_cast<std::ptrdiff_t>(stretch);
    EXPECT_GE(std::set<float>(begin, end).size(), num_different) << at;
    const auto negative = static_cast<double>(std::count_if(begin, end, [](float x) { return x < 0.0F; }));
    EXPECT_NEAR(negative / static_cast<double>(stretch), 0.5, 0.02) << at;
    EXPECT_LT(*std::max_element(begin, end), 0.21F);
    EXPECT_GT(*std::min_element(begin, end), -0.21F);
  }
  for (std::size_t i = ops::kSpreadPeriod; i < values.size(); ++i) {
    if (values[i] != values[i - ops::kSpreadPeriod]) return ADD_FAILURE() << "element " << i;
  }
}

TEST(OpMemory, NumbersAreSpread) {
  expect_spread<float>(100, 200, DType::fp32, 19900);
  expect_spread<bf16>(100, 200, DType::bf16, 500);
  expect_spread<float>(5, ops::kSpreadPeriod + 3, DType::fp32, 19900);
  expect_spread<bf16>(701, 333, DType::bf16, 500);
}

TEST(OpMemory, TensorsHaveNumbersOfTheirOwn) {
  Stream stream(1);
  OpMemory memory(stream, 1 << 16);
  const Tensor a = memory.tensor(10, 10, DType::fp32), b = memory.tensor(10, 10, DType::fp32);
  EXPECT_NE(values_of<float>(a), values_of<float>(b));
}

TEST(OpMemory, PositiveOnesAndConstants) {
  Stream stream(1);
  OpMemory memory(stream, 1 << 20);
  const std::vector<float> positive =
      values_of<float>(memory.tensor(100, 200, DType::fp32, ops::Numbers::positive));
  EXPECT_GE(*std::min_element(positive.begin(), positive.end()), 0.05F);
  EXPECT_GE(std::set<float>(positive.begin(), positive.end()).size(), 19000U);
  EXPECT_EQ(test::elements_of<double>(memory.constant(2, 1, DType::fp64, 0.5F)),
            (std::vector<double>{0.5, 0.5}));
  EXPECT_THROW(memory.tensor(1, 1, DType::fp64), LogicError);
}

}  // namespace
}  // namespace red::launch
