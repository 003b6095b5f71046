#include "ops/head_norm_rope.hpp"

#include "support/compare.hpp"
#include "support/every_cpu_target.hpp"
#include "support/finite_difference.hpp"
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

using Positions = test::DeviceArray<int32_t>;

constexpr double kEpsilon = 1e-6, kBase = 10000.0;
// fp32: a mean over at most 128 squares, then a rotation by angles rounded once.
constexpr test::Tolerance kClose = {.absolute = 1e-6, .relative = 1e-6};

struct Shape {
  int64_t tokens, heads, head_dim, padding;
};
constexpr Shape kShapes[] = {{1, 1, 2, 0},  {5, 3, 6, 4},    {9, 2, 16, 0},
                             {7, 3, 40, 8}, {67, 8, 128, 0}, {0, 2, 4, 0}};

std::vector<int32_t> some_positions(int64_t tokens) {
  std::vector<int32_t> positions;
  for (int64_t i = 0; i < tokens; ++i) positions.push_back(static_cast<int32_t>((i * 37 + 11) % 100));
  return positions;
}

struct Reference {
  Matrix y, inv_rms;  // (n, h k), (n, h)
};

/// Without positions: the norm alone.
Reference reference_forward(const Matrix& x, int64_t heads, const std::vector<int32_t>* positions) {
  Reference r{x, Matrix(x.rows, heads)};
  const int64_t k = x.cols / heads, half = k / 2;
  for (int64_t t = 0; t < x.rows; ++t) {
    for (int64_t h = 0; h < heads; ++h) {
      double squares = 0.0;
      for (int64_t i = 0; i < k; ++i) squares += x(t, h * k + i) * x(t, h * k + i);
      const double scale = r.inv_rms(t, h) = 1.0 / std::sqrt(squares / static_cast<double>(k) + kEpsilon);
      for (int64_t i = 0; i < half; ++i) {
        const double angle =
            positions == nullptr
                ? 0.0
                : (*positions)[t] * std::pow(kBase, -static_cast<double>(i) / static_cast<double>(half));
        const double a = x(t, h * k + i) * scale, b = x(t, h * k + half + i) * scale;
        r.y(t, h * k + i) = a * std::cos(angle) - b * std::sin(angle);
        r.y(t, h * k + half + i) = b * std::cos(angle) + a * std::sin(angle);
      }
    }
  }
  return r;
}

/// d(sum of dy * y)/dx by central differences in float64.
Matrix reference_backward(const Matrix& dy, const Matrix& x, int64_t heads,
                          const std::vector<int32_t>* positions) {
  Matrix dx(x.rows, x.cols);
  for (int64_t t = 0; t < x.rows; ++t) {
    // One token at a time: the others do not depend on it.
    Matrix row(1, x.cols);
    for (int64_t j = 0; j < x.cols; ++j) row(0, j) = x(t, j);
    std::vector<int32_t> position;
    if (positions != nullptr) position = {(*positions)[t]};
    const Matrix gradient = test::finite_difference(row, [&](const Matrix& at) {
      const Matrix y = reference_forward(at, heads, positions == nullptr ? nullptr : &position).y;
      double loss = 0.0;
      for (int64_t j = 0; j < x.cols; ++j) loss += dy(t, j) * y(0, j);
      return loss;
    });
    for (int64_t j = 0; j < x.cols; ++j) dx(t, j) = gradient(0, j);
  }
  return dx;
}

TEST(HeadNormRope, ByHand) {
  Stream stream(1);
  // Two heads of width 2: (3, 4) has rms sqrt(12.5). Position 1 turns by 1 radian.
  const RopeTable table(2, 2, kBase);
  const FloatTensor x(Matrix(1, 4, {3, 4, 0, 5})), inv_rms(1, 2);
  const Positions on_device({1});
  head_norm_rope(stream, x, inv_rms, 2, 0.0F, table, on_device.data());
  const double c = std::cos(1.0), s = std::sin(1.0), a = 1.0 / std::sqrt(12.5);
  EXPECT_TRUE(close(x.read(), Matrix(1, 4, {(3 * c - 4 * s) * a, (4 * c + 3 * s) * a, -5 * s * a, 5 * c * a}),
                    {.relative = 5e-7}));
  EXPECT_TRUE(close(inv_rms.read(), Matrix(1, 2, {a, a}), {.relative = 3e-7}));
}

TEST(HeadNormRope, TableHoldsAnglesOfFloat64) {
  const RopeTable table(16384, 128, kBase);
  ASSERT_EQ(table.half(), 64);
  const auto cosine = test::DeviceArray<float>::read_from(table.cos(), 16384 * 64);
  const auto sine = test::DeviceArray<float>::read_from(table.sin(), 16384 * 64);
  for (const int64_t position : {0, 1, 2047, 16383}) {
    for (const int64_t i : {0, 1, 31, 63}) {
      const double angle = static_cast<double>(position) * std::pow(kBase, -static_cast<double>(i) / 64.0);
      EXPECT_EQ(cosine[position * 64 + i], static_cast<float>(std::cos(angle)));
      EXPECT_EQ(sine[position * 64 + i], static_cast<float>(std::sin(angle)));
    }
  }
}

TEST(HeadNormRope, ForwardEqualsFloat64) {
  for_every_cpu_target([] {
    for (const auto& [tokens, heads, head_dim, padding] : kShapes) {
      Stream stream(2);
      const Matrix given = random_matrix(tokens, heads * head_dim, 1, 3.0);
      const std::vector<int32_t> positions = some_positions(tokens);
      const Positions on_device(positions);
      const RopeTable table(100, head_dim, kBase);
      for (const bool rotate : {false, true}) {
        const FloatTensor x(given, padding), inv_rms(tokens, heads, padding);
        if (rotate) {
          head_norm_rope(stream, x, inv_rms, heads, kEpsilon, table, on_device.data());
        } else {
          head_norm(stream, x, inv_rms, heads, kEpsilon);
        }
        const Reference expected = reference_forward(given, heads, rotate ? &positions : nullptr);
        EXPECT_TRUE(close(x.read(), expected.y, kClose)) << tokens << " tokens, head width " << head_dim;
        EXPECT_TRUE(close(inv_rms.read(), expected.inv_rms, kClose));
        EXPECT_TRUE(x.padding_untouched() && inv_rms.padding_untouched());
      }
    }
  });
}

TEST(HeadNormRope, BackwardEqualsFloat64) {
  for_every_cpu_target([] {
    for (const auto& [tokens, heads, head_dim, padding] : kShapes) {
      if (tokens * head_dim > 1000) continue;  // finite differences cost the square of the width
      Stream stream(2);
      const Matrix given = random_matrix(tokens, heads * head_dim, 2),
                   dy = random_matrix(tokens, heads * head_dim, 3);
      const std::vector<int32_t> positions = some_positions(tokens);
      const Positions on_device(positions);
      const RopeTable table(100, head_dim, kBase);
      for (const bool rotate : {false, true}) {
        const Reference forward = reference_forward(given, heads, rotate ? &positions : nullptr);
        const FloatTensor dx(dy, padding), y(forward.y, 3), inv_rms(forward.inv_rms);
        if (rotate) {
          head_norm_rope_backward(stream, dx, y, inv_rms, heads, table, on_device.data());
        } else {
          head_norm_backward(stream, dx, y, inv_rms, heads);
        }
        // Relative to inv_rms, which is large where a head is short.
        EXPECT_TRUE(close(dx.read(), reference_backward(dy, given, heads, rotate ? &positions : nullptr),
                          {.absolute = 3e-6, .relative = 3e-6}))
            << tokens << " tokens, head width " << head_dim;
        EXPECT_TRUE(dx.padding_untouched());
      }
    }
  });
}

/// What the backward pass means: R^-1 (dy - y mean(y dy)) inv_rms, of y as it was stored.
Matrix backward_of_stored(const Matrix& dy, const Matrix& y, const Matrix& inv_rms,
                          const std::vector<int32_t>* positions) {
  Matrix dx(dy.rows, dy.cols);
  const int64_t heads = inv_rms.cols, k = dy.cols / heads, half = k / 2;
  for (int64_t t = 0; t < dy.rows; ++t) {
    for (int64_t first = 0; first < dy.cols; first += k) {
      double mean = 0.0;
      for (int64_t i = first; i < first + k; ++i) mean += y(t, i) * dy(t, i) / static_cast<double>(k);
      for (int64_t i = first; i < first + half; ++i) {
        const double exponent = -static_cast<double>(i - first) / static_cast<double>(half);
        const double angle = positions == nullptr ? 0.0 : (*positions)[t] * std::pow(kBase, exponent);
        const double a = dy(t, i) - y(t, i) * mean, b = dy(t, i + half) - y(t, i + half) * mean;
        dx(t, i) = inv_rms(t, first / k) * (a * std::cos(angle) + b * std::sin(angle));
        dx(t, i + half) = inv_rms(t, first / k) * (b * std::cos(angle) - a * std::sin(angle));
      }
    }
  }
  return dx;
}

TEST(HeadNormRope, Bf16EqualsFloat64OfTheRoundedArguments) {
  for_every_cpu_target([] {
    for (const auto& [tokens, heads, head_dim, padding] : kShapes) {
      Stream stream(2);
      const Matrix given = as_bf16(random_matrix(tokens, heads * head_dim, 8, 3.0)),
                   dy = as_bf16(random_matrix(tokens, heads * head_dim, 9));
      const std::vector<int32_t> positions = some_positions(tokens);
      const Positions on_device(positions);
      const RopeTable table(100, head_dim, kBase);
      for (const bool rotate : {false, true}) {
        const Bf16Tensor x(given, padding), dx(dy, padding);
        const FloatTensor inv_rms(tokens, heads, padding);
        const auto* turned = rotate ? &positions : nullptr;
        if (rotate) {
          head_norm_rope(stream, x, inv_rms, heads, kEpsilon, table, on_device.data());
          head_norm_rope_backward(stream, dx, x, inv_rms, heads, table, on_device.data());
        } else {
          head_norm(stream, x, inv_rms, heads, kEpsilon);
          head_norm_backward(stream, dx, x, inv_rms, heads);
        }
        const Reference expected = reference_forward(given, heads, turned);
        EXPECT_TRUE(close(x.read(), expected.y, {.absolute = 1e-6, .relative = test::kBf16Rounding}));
        EXPECT_TRUE(close(inv_rms.read(), expected.inv_rms, kClose));
        EXPECT_TRUE(close(dx.read(), backward_of_stored(dy, x.read(), inv_rms.read(), turned),
                          {.absolute = 3e-6, .relative = test::kBf16Rounding}));
        EXPECT_TRUE(x.padding_untouched() && dx.padding_untouched() && inv_rms.padding_untouched());
      }
    }
  });
}

TEST(HeadNormRope, LogitsStayWithinTheRootOfTheWidth) {
  Stream stream(2);
  constexpr int64_t tokens = 50, width = 128;
  const FloatTensor q(random_matrix(tokens, width, 4, 100.0)), k(random_matrix(tokens, width, 5, 1e-2));
  const FloatTensor q_rms(tokens, 1), k_rms(tokens, 1);
  const RopeTable table(100, width, kBase);
  const Positions on_device(some_positions(tokens));
  head_norm_rope(stream, q, q_rms, 1, kEpsilon, table, on_device.data());
  head_norm_rope(stream, k, k_rms, 1, kEpsilon, table, on_device.data());
  const Matrix a = q.read(), b = k.read();
  for (int64_t i = 0; i < tokens; ++i) {
    for (int64_t j = 0; j < tokens; ++j) {
      double dot = 0.0;
      for (int64_t c = 0; c < width; ++c) dot += a(i, c) * b(j, c);
      EXPECT_LE(std::abs(dot) / std::sqrt(128.0), std::sqrt(128.0) * (1 + 1e-5));
    }
  }
}

TEST(HeadNormRope, ThreadsDoNotChangeABit) {
  const Matrix x = random_matrix(301, 3 * 40, 6), dy = random_matrix(301, 3 * 40, 7);
  const Positions on_device(some_positions(301));
  const RopeTable table(100, 40, kBase);
  test::expect_one_result([&](Stream& stream) {
    const FloatTensor y(x), inv_rms(301, 3), dx(dy);
    head_norm_rope(stream, y, inv_rms, 3, kEpsilon, table, on_device.data());
    head_norm_rope_backward(stream, dx, y, inv_rms, 3, table, on_device.data());
    return std::vector{y.elements(), inv_rms.elements(), dx.elements()};
  });
}

TEST(HeadNormRope, RefusesWhatDoesNotFit) {
  Stream stream(1);
  const FloatTensor x(2, 8), inv_rms(2, 2);
  const RopeTable table(4, 4, kBase);
  const Positions beyond({0, 4}), negative({-1, 0});
  EXPECT_THROW(head_norm(stream, x, inv_rms, 3, kEpsilon), LogicError);
  EXPECT_THROW(head_norm(stream, x, FloatTensor(2, 1), 2, kEpsilon), LogicError);
  EXPECT_THROW(head_norm_rope(stream, x, inv_rms, 2, kEpsilon, RopeTable(4, 8, kBase), beyond.data()),
               LogicError);
  EXPECT_THROW(RopeTable(4, 3, kBase), LogicError);
  if (test::on_cpu()) {
    EXPECT_THROW(head_norm_rope(stream, x, inv_rms, 2, kEpsilon, table, beyond.data()), LogicError);
    EXPECT_THROW(head_norm_rope(stream, x, inv_rms, 2, kEpsilon, table, negative.data()), LogicError);
    return;
  }
  // On a GPU what has no position becomes no number, and so the step is called off.
  head_norm_rope(stream, x, inv_rms, 2, kEpsilon, table, beyond.data());
  EXPECT_FALSE(std::isnan(x.read()(0, 7)));
  EXPECT_TRUE(std::isnan(x.read()(1, 0)) && std::isnan(x.read()(1, 7)));
  const FloatTensor other(2, 8);
  head_norm_rope(stream, other, inv_rms, 2, kEpsilon, table, negative.data());
  EXPECT_TRUE(std::isnan(other.read()(0, 0)));
}

}  // namespace
}  // namespace red::ops
