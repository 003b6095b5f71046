#include "ops/embedding.hpp"

#include <vector>

#include "support/compare.hpp"
#include "support/every_cpu_target.hpp"

namespace red::ops {
namespace {

using test::as_bf16;
using test::Bf16Tensor;
using test::close;
using test::FloatTensor;
using test::for_every_cpu_target;
using test::Matrix;
using test::OwnedTensor;
using test::random_matrix;

using Ids = OwnedTensor<int32_t>;

/// (n, 1) ids below the vocabulary, most of them several times.
Matrix random_ids(int64_t n, int64_t vocabulary) {
  Matrix ids(n, 1);
  for (int64_t i = 0; i < n; ++i)
    ids(i, 0) = philox(7, static_cast<uint64_t>(i))[0] % static_cast<uint32_t>(vocabulary);
  return ids;
}

TEST(Embedding, ByHand) {
  Stream stream(1);
  const Matrix table(3, 2, {1, 2, 3, 4, 5, 6});
  const Ids ids(Matrix(4, 1, {2, 0, 2, 1}));
  const FloatTensor x(4, 2);
  embedding_gather(stream, x, FloatTensor(table), ids.data());
  EXPECT_TRUE(close(x.read(), Matrix(4, 2, {5, 6, 1, 2, 5, 6, 3, 4}), {}));
  const FloatTensor gradient(table);
  embedding_scatter_add(stream, gradient, FloatTensor(Matrix(4, 2, {10, 20, 30, 40, 50, 60, 70, 80})),
                        ids.data());
  EXPECT_TRUE(close(gradient.read(), Matrix(3, 2, {31, 42, 73, 84, 65, 86}), {}));
}

TEST(Embedding, EqualsFloat64AtOddSizes) {
  constexpr int64_t shapes[][3] = {{1, 1, 1}, {7, 5, 3}, {301, 97, 129}, {33, 1000, 65}, {0, 4, 3}};
  for_every_cpu_target([&] {
    for (const auto& [n, vocabulary, width] : shapes) {
      Stream stream(2);
      const Matrix table = random_matrix(vocabulary, width, 1), dx = random_matrix(n, width, 2);
      const Matrix id = random_ids(n, vocabulary);
      const Ids ids(id);
      Matrix expected(n, width), expected_gradient = table;
      for (int64_t i = 0; i < n; ++i) {
        const auto row = static_cast<int64_t>(id(i, 0));
        for (int64_t j = 0; j < width; ++j) {
          expected(i, j) = table(row, j);
          expected_gradient(row, j) += dx(i, j);
        }
      }
      const FloatTensor x(n, width, 3), gradient(table, 1);
      embedding_gather(stream, x, gradient, ids.data());
      EXPECT_TRUE(close(x.read(), expected, {}));
      embedding_scatter_add(stream, gradient, FloatTensor(dx, 2), ids.data());
      // fp32: a few hundred additions of N(0, 1) to one element at most.
      EXPECT_TRUE(close(gradient.read(), expected_gradient, {.absolute = 3e-5}));
      EXPECT_TRUE(x.padding_untouched());
      EXPECT_TRUE(gradient.padding_untouched());
    }
  });
}

TEST(Embedding, Bf16RowsAndFp32Gradients) {
  for_every_cpu_target([] {
    Stream stream(2);
    const Matrix table = as_bf16(random_matrix(5, 129, 4)), dx = as_bf16(random_matrix(7, 129, 5)),
                 before = random_matrix(3, 129, 6);
    const Ids ids(Matrix(7, 1, {4, 1, 2, 3, 4, 0, 2}));
    const Bf16Tensor x(7, 129, 3);
    const FloatTensor gradient(before, 1);
    // Rows 1 to 3 of the table are this rank's.
    const Bf16Tensor whole(table, 2);
    embedding_gather(stream, x, whole.tensor().row_range(1, 3), ids.data(), 1);
    embedding_scatter_add(stream, gradient, Bf16Tensor(dx, 2), ids.data(), 1);
    Matrix expected(7, 129), expected_gradient = before;
    for (int64_t i = 0; i < 7; ++i) {
      const int64_t row = std::vector<int64_t>{4, 1, 2, 3, 4, 0, 2}[i];
      if (row < 1 || row > 3) continue;
      for (int64_t j = 0; j < 129; ++j) {
        expected(i, j) = table(row, j);
        expected_gradient(row - 1, j) += dx(i, j);
      }
    }
    EXPECT_TRUE(close(x.read(), expected, {}));
    // fp32: two additions of N(0, 1) at most.
    EXPECT_TRUE(close(gradient.read(), expected_gradient, {.absolute = 5e-7}));
    EXPECT_TRUE(x.padding_untouched() && gradient.padding_untouched());
    EXPECT_THROW(embedding_gather(stream, FloatTensor(7, 129), whole, ids.data()), LogicError);
  });
}

TEST(Embedding, ScatterIsBitEqualForAnyNumberOfThreads) {
  const Matrix dx = random_matrix(1001, 200, 3);
  const Ids ids(random_ids(1001, 13));
  std::vector<float> first;
  for (const int num_threads : {1, 2, 3}) {
    Stream stream(num_threads);
    const FloatTensor gradient(13, 200);
    embedding_scatter_add(stream, gradient, FloatTensor(dx), ids.data());
    if (num_threads == 1) first = gradient.elements();
    EXPECT_EQ(gradient.elements(), first) << num_threads << " threads";
  }
}

// A rank with rows 2 to 4 of a table of 6: tokens of other ranks give zeros and get nothing.
TEST(Embedding, RowsDividedOverRanks) {
  for_every_cpu_target([] {
    Stream stream(2);
    const Matrix own(3, 2, {20, 21, 30, 31, 40, 41});
    const Ids ids(Matrix(5, 1, {4, 1, 2, 5, 4}));
    const FloatTensor x(random_matrix(5, 2, 1));
    embedding_gather(stream, x, FloatTensor(own), ids.data(), 2);
    EXPECT_TRUE(close(x.read(), Matrix(5, 2, {40, 41, 0, 0, 20, 21, 0, 0, 40, 41}), {}));
    const FloatTensor gradient(own);
    embedding_scatter_add(stream, gradient, FloatTensor(Matrix(5, 2, {1, 2, 3, 4, 5, 6, 7, 8, 9, 10})),
                          ids.data(), 2);
    EXPECT_TRUE(close(gradient.read(), Matrix(3, 2, {25, 27, 30, 31, 50, 53}), {}));
  });
}

}  // namespace
}  // namespace red::ops
