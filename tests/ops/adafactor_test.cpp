#include "ops/adafactor.hpp"

#include <cmath>
#include <limits>

#include "support/compare.hpp"
#include "support/every_cpu_target.hpp"
#include "support/reference_ops.hpp"

namespace red::ops {
namespace {

using test::close;
using test::DoubleTensor;
using test::FloatTensor;
using test::for_every_cpu_target;
using test::Matrix;
using test::random_matrix;
using test::reference_adafactor;
using test::reference_adafactor_factored;
using test::ReferenceAdafactor;

/// fp32: v and u are right to a few roundings, and so is the step against the size of p.
constexpr test::Tolerance kOfMoment{.relative = 5e-7}, kOfParameter{.absolute = 2e-8, .relative = 2e-7};

/// Device scalars of a step.
struct Scalars {
  Scalars(double scale, double decay_value, double rate, double apply_value = 1.0)
      : grad_scale(Matrix(1, 1, scale)),
        decay(Matrix(1, 1, decay_value)),
        learning_rate(Matrix(1, 1, rate)),
        apply(Matrix(1, 1, apply_value)) {}
  AdafactorScalars view() const { return {grad_scale, decay, learning_rate, apply}; }
  DoubleTensor grad_scale, decay, learning_rate, apply;
};

Matrix scaled(Matrix m, double factor) {
  for (double& x : m.values) x *= factor;
  return m;
}

/// Gradients of very different sizes, zeros among them.
Matrix random_gradient(int64_t rows, int64_t cols, uint64_t seed) {
  Matrix g = random_matrix(rows, cols, seed);
  for (std::size_t i = 0; i < g.values.size(); ++i)
    g.values[i] *= std::pow(10.0, static_cast<int>(i % 7) - 5);
  if (!g.values.empty()) g.values.back() = 0.0;
  return g;
}

Matrix squares(Matrix m) {
  for (double& x : m.values) x = static_cast<float>(x * x);
  return m;
}

TEST(Adafactor, FirstStepByHand) {
  // b = 0: v = g^2, u = sign g, RMS(u) = 1, RMS(p) = 2: p moves by lr x 2.
  Stream stream(1);
  const Scalars scalars(1.0, 0.0, 0.1);
  const FloatTensor p(Matrix(1, 2, {2.0, -2.0})), v(1, 2), g(Matrix(1, 2, {0.5, -3.0}));
  const DoubleTensor u2(1, 1), p2(1, 1);
  adafactor_accumulate(stream, v, g, p, u2, p2, scalars.view(), {});
  EXPECT_TRUE(close(v.read(), Matrix(1, 2, {0.25, 9.0}), {.relative = 1e-7}));
  EXPECT_TRUE(close(u2.value(), 2.0, {.relative = 1e-7}));
  EXPECT_TRUE(close(p2.value(), 8.0, {}));
  adafactor_apply(stream, p, g, v, u2, p2, 2, scalars.view(), {});
  EXPECT_TRUE(close(p.read(), Matrix(1, 2, {1.8, -1.8}), {.relative = 1e-7}));
}

struct Shape {
  int64_t rows, cols, padding;
};
constexpr Shape kShapes[] = {{1, 1, 0}, {3, 5, 2}, {129, 33, 3}, {1030, 1, 0}, {7, 40001, 1}, {300, 257, 0}};

TEST(Adafactor, EqualsFloat64AtOddSizes) {
  for_every_cpu_target([] {
    for (const auto& [rows, cols, padding] : kShapes) {
      for (const double parameter_scale : {1.0, 1e-6}) {  // the second is below epsilon2
        Stream stream(2, 1 << 20);
        const ReferenceAdafactor reference{.decay = 0.7, .learning_rate = 0.01};
        const Scalars scalars(0.125, reference.decay, reference.learning_rate);
        const Matrix gradient = random_gradient(rows, cols, 1);
        Matrix moment = squares(random_gradient(rows, cols, 2));
        Matrix parameter = random_matrix(rows, cols, 3, parameter_scale);
        const FloatTensor p(parameter, padding), v(moment), g(gradient, padding + 1);
        reference_adafactor(parameter, moment, scaled(gradient, 0.125), reference);
        const DoubleTensor u2(1, 1), p2(1, 1);
        adafactor_accumulate(stream, v, g, p, u2, p2, scalars.view(), {});
        adafactor_apply(stream, p, g, v, u2, p2, rows * cols, scalars.view(), {});
        EXPECT_TRUE(close(v.read(), moment, kOfMoment)) << rows << " x " << cols;
        EXPECT_TRUE(close(p.read(), parameter, kOfParameter)) << rows << " x " << cols;
        EXPECT_TRUE(p.padding_untouched());
      }
    }
  });
}

TEST(Adafactor, ShardsAddUpToTheWhole) {
  Stream stream(2, 1 << 20);
  const Scalars scalars(1.0, 0.9, 0.1);
  const Matrix gradient = random_gradient(37, 65, 1), parameter = random_matrix(37, 65, 2);
  const FloatTensor p(parameter), v(37, 65), g(gradient), whole(parameter), whole_v(37, 65);
  const DoubleTensor u2(1, 1), p2(1, 1), whole_u2(1, 1), whole_p2(1, 1);
  adafactor_accumulate(stream, whole_v, g, whole, whole_u2, whole_p2, scalars.view(), {});
  adafactor_apply(stream, whole, g, whole_v, whole_u2, whole_p2, 37 * 65, scalars.view(), {});
  constexpr int64_t shards[][2] = {{0, 20}, {20, 0}, {20, 17}};
  for (const auto& [begin, count] : shards) {
    adafactor_accumulate(stream, v.tensor().row_range(begin, count), g.tensor().row_range(begin, count),
                         p.tensor().row_range(begin, count), u2, p2, scalars.view(), {});
  }
  EXPECT_TRUE(close(u2.value(), whole_u2.value(), {.relative = 1e-13}));
  for (const auto& [begin, count] : shards) {
    adafactor_apply(stream, p.tensor().row_range(begin, count), g.tensor().row_range(begin, count),
                    v.tensor().row_range(begin, count), u2, p2, 37 * 65, scalars.view(), {});
  }
  EXPECT_TRUE(close(p.read(), whole.read(), {.relative = 1e-7}));
}

TEST(Adafactor, ZeroGradientsStayFinite) {
  for_every_cpu_target([] {
    Stream stream(1, 1 << 16);
    const Scalars scalars(1.0, 0.0, 0.1);
    const FloatTensor p(Matrix(3, 7, 1.0)), v(3, 7), g(3, 7);
    const DoubleTensor u2(1, 1), p2(1, 1);
    adafactor_accumulate(stream, v, g, p, u2, p2, scalars.view(), {});
    adafactor_apply(stream, p, g, v, u2, p2, 21, scalars.view(), {});
    EXPECT_EQ(u2.value(), 0.0);
    EXPECT_TRUE(close(p.read(), Matrix(3, 7, 1.0), {}));
  });
}

TEST(Adafactor, WithoutApplyNothingChangesAndSumsAreFormed) {
  for_every_cpu_target([] {
    Stream stream(2, 1 << 20);
    const Scalars scalars(1.0, 0.5, 0.1), skip(1.0, 0.5, 0.1, 0.0);
    const Matrix gradient = random_matrix(9, 33, 1), moment = squares(gradient),
                 parameter = random_matrix(9, 33, 2);
    const FloatTensor p(parameter, 1), v(moment), g(gradient), other_v(moment);
    const DoubleTensor u2(1, 1), p2(1, 1), other_u2(1, 1), other_p2(1, 1);
    adafactor_accumulate(stream, v, g, p, u2, p2, skip.view(), {});
    adafactor_accumulate(stream, other_v, g, p, other_u2, other_p2, scalars.view(), {});
    EXPECT_EQ(u2.value(), other_u2.value());
    EXPECT_EQ(p2.value(), other_p2.value());
    adafactor_apply(stream, p, g, v, u2, p2, 9 * 33, skip.view(), {});
    EXPECT_TRUE(close(v.read(), moment, {}));
    EXPECT_TRUE(close(p.read(), parameter, {}));
  });
}

/// The factored rule over shards of rows, as an optimizer calls it.
struct FactoredRun {
  FactoredRun(const Matrix& parameter, const Matrix& row, const Matrix& col, const Matrix& gradient,
              int64_t padding)
      : p(parameter, padding),
        v_row(row),
        v_col(col),
        g(gradient, padding),
        row_sum(row.rows, 1),
        col_sum(col.rows, 1),
        row_total(1, 1),
        col_total(1, 1),
        u2(1, 1),
        p2(1, 1) {}

  void step(Stream& stream, const AdafactorScalars& scalars, std::initializer_list<int64_t> shard_rows) {
    const int64_t rows = p.tensor().rows, cols = p.tensor().cols;
    each_shard(shard_rows, [&](int64_t begin, int64_t count) {
      adafactor_factored_sums(stream, row_sum.tensor().row_range(begin, count), col_sum,
                              g.tensor().row_range(begin, count), scalars, {});
    });
    each_shard(shard_rows, [&](int64_t begin, int64_t count) {
      adafactor_factored_update(stream, v_row.tensor().row_range(begin, count),
                                row_sum.tensor().row_range(begin, count), cols, row_total, scalars);
    });
    adafactor_factored_update(stream, v_col, col_sum, rows, col_total, scalars);
    each_shard(shard_rows, [&](int64_t begin, int64_t count) {
      adafactor_factored_accumulate(
          stream, g.tensor().row_range(begin, count), p.tensor().row_range(begin, count),
          v_row.tensor().row_range(begin, count), v_col, row_total, rows, u2, p2, scalars);
    });
    each_shard(shard_rows, [&](int64_t begin, int64_t count) {
      adafactor_factored_apply(stream, p.tensor().row_range(begin, count), g.tensor().row_range(begin, count),
                               v_row.tensor().row_range(begin, count), v_col, row_total, rows, u2, p2,
                               rows * cols, scalars, {});
    });
  }

  template <class Body>
  static void each_shard(std::initializer_list<int64_t> shard_rows, const Body& body) {
    int64_t begin = 0;
    for (const int64_t count : shard_rows) {
      body(begin, count);
      begin += count;
    }
  }

  FloatTensor p, v_row, v_col, g;
  DoubleTensor row_sum, col_sum, row_total, col_total, u2, p2;
};

TEST(FactoredAdafactor, FirstStepByHand) {
  // b = 0; g^2 = (1 4; 4 16): rows' means 2.5 and 10, columns' the same, so v_row v_col / mean = g^2 and u
  // = 1.
  Stream stream(1);
  const Scalars scalars(1.0, 0.0, 0.1);
  FactoredRun run(Matrix(2, 2, 2.0), Matrix(2, 1), Matrix(2, 1), Matrix(2, 2, {1, 2, 2, 4}), 0);
  run.step(stream, scalars.view(), {2});
  EXPECT_TRUE(close(run.v_row.read(), Matrix(2, 1, {2.5, 10}), {.relative = 1e-7}));
  EXPECT_TRUE(close(run.v_col.read(), Matrix(2, 1, {2.5, 10}), {.relative = 1e-7}));
  EXPECT_TRUE(close(run.u2.value(), 4.0, {.relative = 1e-6}));
  EXPECT_TRUE(close(run.p.read(), Matrix(2, 2, 1.8), {.relative = 1e-7}));
}

TEST(FactoredAdafactor, EqualsFloat64AtOddSizesAndInShards) {
  for_every_cpu_target([] {
    for (const auto& [rows, cols, padding] : kShapes) {
      Stream stream(2);
      const ReferenceAdafactor reference{.decay = 0.7, .learning_rate = 0.01};
      const Scalars scalars(0.125, reference.decay, reference.learning_rate);
      const Matrix gradient = random_gradient(rows, cols, 1);
      Matrix row = squares(random_matrix(rows, 1, 2)), col = squares(random_matrix(cols, 1, 3));
      Matrix parameter = random_matrix(rows, cols, 4);
      FactoredRun run(parameter, row, col, gradient, padding), shards(parameter, row, col, gradient, 0);
      run.step(stream, scalars.view(), {rows});
      shards.step(stream, scalars.view(), {rows / 3, 0, rows - rows / 3});
      reference_adafactor_factored(parameter, row, col, scaled(gradient, 0.125), reference);
      for (const FactoredRun* got : {&run, &shards}) {
        EXPECT_TRUE(close(got->v_row.read(), row, kOfMoment)) << rows << " x " << cols;
        EXPECT_TRUE(close(got->v_col.read(), col, kOfMoment)) << rows << " x " << cols;
        EXPECT_TRUE(close(got->p.read(), parameter, kOfParameter)) << rows << " x " << cols;
        EXPECT_TRUE(got->p.padding_untouched());
      }
    }
  });
}

TEST(FactoredAdafactor, BitEqualForAnyNumberOfThreads) {
  const Matrix gradient = random_gradient(1200, 300, 1), parameter = random_matrix(1200, 300, 2);
  const Scalars scalars(1.0, 0.5, 0.1);
  std::vector<float> first;
  for (const int num_threads : {1, 2, 3}) {
    Stream stream(num_threads);
    FactoredRun run(parameter, Matrix(1200, 1, 1.0), Matrix(300, 1, 1.0), gradient, 0);
    run.step(stream, scalars.view(), {1200});
    if (num_threads == 1) first = run.p.elements();
    EXPECT_EQ(run.p.elements(), first) << num_threads << " threads";
  }
}

TEST(FactoredAdafactor, WithoutApplyNothingChanges) {
  Stream stream(1);
  const Matrix gradient(3, 5, std::numeric_limits<double>::quiet_NaN()), parameter = random_matrix(3, 5, 1);
  FactoredRun run(parameter, Matrix(3, 1, 2.0), Matrix(5, 1, 3.0), gradient, 1);
  run.step(stream, Scalars(1.0, 0.5, 0.1, 0.0).view(), {3});
  EXPECT_TRUE(close(run.p.read(), parameter, {}));
  EXPECT_TRUE(close(run.v_row.read(), Matrix(3, 1, 2.0), {}));
  EXPECT_TRUE(close(run.v_col.read(), Matrix(5, 1, 3.0), {}));
  EXPECT_TRUE(std::isnan(run.row_total.value()));
  EXPECT_TRUE(std::isnan(run.u2.value()));
}

}  // namespace
}  // namespace red::ops
