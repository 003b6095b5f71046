#include "ops/dropout.hpp"

#include "support/compare.hpp"
#include "support/every_cpu_target.hpp"
#include "support/one_result.hpp"

namespace red::ops {
namespace {

using test::as_bf16;
using test::Bf16Tensor;
using test::close;
using test::FloatTensor;
using test::for_every_cpu_target;
using test::Matrix;
using test::random_matrix;

using RowKeys = test::DeviceArray<uint64_t>;

constexpr uint64_t kKey = 0x123456789ABCDEF0U;

/// Row keys that differ in high and low halves.
std::vector<uint64_t> keys_of(int64_t rows) {
  std::vector<uint64_t> keys;
  for (int64_t i = 0; i < rows; ++i)
    keys.push_back(static_cast<uint64_t>(i / 3) << 33 | static_cast<uint64_t>(i % 3));
  return keys;
}

Matrix reference(const Matrix& x, const std::vector<uint64_t>& keys, int64_t first_column,
                 const Dropout& dropout) {
  Matrix y(x.rows, x.cols);
  for (int64_t i = 0; i < x.rows; ++i) {
    for (int64_t j = 0; j < x.cols; ++j) {
      const bool kept =
          is_kept(dropout, keys[static_cast<std::size_t>(i)], static_cast<uint64_t>(first_column + j));
      y(i, j) = kept ? x(i, j) / (1.0 - static_cast<double>(dropout.rate)) : 0.0;
    }
  }
  return y;
}

struct Shape {
  int64_t rows, cols, padding, first_column;
};
constexpr Shape kShapes[] = {{1, 1, 0, 0},    {3, 5, 3, 7},        {9, 64, 0, 0},
                             {5, 200, 1, 63}, {33, 1027, 5, 1027}, {0, 4, 0, 0}};

// fp32: a division, and a product.
TEST(Dropout, EqualsItsDefinition) {
  for_every_cpu_target([] {
    for (const auto& [rows, cols, padding, first_column] : kShapes) {
      for (const float rate : {0.0F, 0.05F, 0.5F, 0.99F}) {
        Stream stream(2);
        const Dropout dropout{rate, kKey};
        const Matrix x = random_matrix(rows, cols, 3);
        const std::vector<uint64_t> keys = keys_of(rows);
        const RowKeys on_device(keys);
        const FloatTensor y(rows, cols, padding), in_place(x, padding);
        ops::dropout(stream, y, in_place, on_device.data(), first_column, dropout);
        ops::dropout(stream, in_place, in_place, on_device.data(), first_column, dropout);
        EXPECT_TRUE(close(y.read(), reference(x, keys, first_column, dropout), {.relative = 3e-7}));
        EXPECT_TRUE(close(in_place.read(), y.read(), {}));
        EXPECT_TRUE(y.padding_untouched());
      }
    }
  });
}

TEST(Dropout, Bf16EqualsItsDefinition) {
  for_every_cpu_target([] {
    Stream stream(1);
    const Dropout dropout{0.3F, kKey};
    const Matrix x = as_bf16(random_matrix(7, 131, 5));
    const Bf16Tensor y(7, 131, 2);
    ops::dropout(stream, y, Bf16Tensor(x), RowKeys(keys_of(7)).data(), 11, dropout);
    EXPECT_TRUE(close(y.read(), reference(x, keys_of(7), 11, dropout), {.relative = test::kBf16Rounding}));
  });
}

// Of n independent draws the share differs from the rate by about sqrt(rate / n): five of those.
TEST(Dropout, DropsTheShareThatItSays) {
  constexpr int64_t rows = 400, cols = 1000;
  for (const float rate : {0.01F, 0.05F, 0.5F}) {
    Stream stream(2);
    const FloatTensor x(Matrix(rows, cols, 1.0));
    ops::dropout(stream, x, x, RowKeys(keys_of(rows)).data(), 0, {rate, kKey});
    const Matrix y = x.read();
    const auto dropped = static_cast<double>(std::count(y.values.begin(), y.values.end(), 0.0));
    EXPECT_NEAR(dropped / (rows * cols), rate, 5 * std::sqrt(rate / (rows * cols)));
  }
}

// Columns cut anywhere give the columns of the whole: tensor ranks hold parts.
TEST(Dropout, PartsArePartsOfTheWhole) {
  Stream stream(1);
  const Dropout dropout{0.5F, kKey};
  const FloatTensor whole(Matrix(4, 150, 1.0)), parts(Matrix(4, 150, 1.0));
  const RowKeys keys(keys_of(4));
  ops::dropout(stream, whole, whole, keys.data(), 0, dropout);
  const Tensor all = parts;
  for (const auto& [begin, count] : {std::pair<int64_t, int64_t>{0, 37}, {37, 60}, {97, 53}}) {
    const Tensor part = all.col_range(begin, count);
    ops::dropout(stream, part, part, keys.data(), begin, dropout);
  }
  EXPECT_TRUE(close(parts.read(), whole.read(), {}));
}

TEST(Dropout, OtherKeysAndRowsDropOtherElements) {
  Stream stream(1);
  const auto dropped = [&](uint64_t key, uint64_t row) {
    const FloatTensor x(Matrix(1, 256, 1.0));
    ops::dropout(stream, x, x, RowKeys({row}).data(), 0, {0.5F, key});
    return x.read().values;
  };
  EXPECT_NE(dropped(1, 0), dropped(2, 0));
  EXPECT_NE(dropped(1, 0), dropped(1, 1));
  EXPECT_EQ(dropped(1, 1), dropped(1, 1));
}

TEST(Dropout, WhatIsNotFiniteIsDroppedToo) {
  for_every_cpu_target([] {
    Stream stream(1);
    const FloatTensor x(Matrix(1, 128, INFINITY));
    ops::dropout(stream, x, x, RowKeys({5}).data(), 0, {0.5F, kKey});
    for (const double value : x.read().values) EXPECT_TRUE(value == 0.0 || std::isinf(value)) << value;
  });
}

}  // namespace
}  // namespace red::ops
