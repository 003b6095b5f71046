#include "ops/cross_entropy.hpp"

#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <vector>

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
using test::OwnedTensor;
using test::random_matrix;
using test::reference_cross_entropy;

/// What one call takes and gives, with `padding` behind each row of logits.
struct Call {
  Call(const Matrix& values, const std::vector<int32_t>& target, const std::vector<uint8_t>& loss_mask,
       int64_t padding = 0)
      : targets(Matrix(values.rows, 1, std::vector<double>(target.begin(), target.end()))),
        mask(Matrix(values.rows, 1, std::vector<double>(loss_mask.begin(), loss_mask.end()))),
        logits(values, padding),
        log_probability(values.rows, 1),
        sums(2, 1) {}

  void run(double z_loss, LogitsBecome become, int num_threads = 2, DType gradient = DType::fp32) {
    Stream stream(num_threads, 1 << 20);
    run(stream, sums, log_probability, z_loss, become, gradient);
  }

  /// As one rank with all columns.
  void run(Stream& stream, const Tensor& sum, const Tensor& log_p, double z_loss, LogitsBecome become,
           DType gradient = DType::fp32) {
    const DoubleTensor partials(1, kCrossEntropyPartialSize * logits.tensor().rows);
    cross_entropy_partials(stream, partials, logits, 0, targets.data(), mask.data(), become);
    const Tensor d_logits = become == LogitsBecome::gradient ? logits_gradient(logits, gradient) : Tensor{};
    cross_entropy(stream, sum, log_p, d_logits, logits, partials, 0, 0, targets.data(), mask.data(),
                  static_cast<float>(z_loss));
  }

  /// The gradient in bf16, from where run() left it.
  Matrix gradient_in_bf16() const {
    const Tensor view = logits_gradient(logits, DType::bf16);
    const std::vector<float> stored = logits.elements();
    std::vector<bf16> row(view.cols);
    Matrix values(view.rows, view.cols);
    for (int64_t i = 0; i < view.rows; ++i) {
      std::memcpy(row.data(), reinterpret_cast<const bf16*>(stored.data()) + i * view.row_stride,
                  row.size() * sizeof(bf16));
      for (int64_t j = 0; j < view.cols; ++j) values(i, j) = row[j];
    }
    return values;
  }

  OwnedTensor<int32_t> targets;
  OwnedTensor<uint8_t> mask;
  FloatTensor logits, log_probability;
  DoubleTensor sums;
};

TEST(CrossEntropy, UniformLogitsByHand) {
  Call call(Matrix(1, 4, 0.0), {2}, {1});
  call.run(0.0, LogitsBecome::gradient);
  EXPECT_TRUE(close(call.sums.read(), Matrix(2, 1, std::log(4.0)), {.relative = 1e-7}));
  EXPECT_TRUE(close(call.log_probability.read(), Matrix(1, 1, -std::log(4.0)), {.relative = 1e-7}));
  EXPECT_TRUE(close(call.logits.read(), Matrix(1, 4, {0.25, 0.25, -0.75, 0.25}), {.absolute = 1e-7}));
}

TEST(CrossEntropy, EqualsFloat64AtOddSizes) {
  constexpr int64_t shapes[][2] = {{1, 1}, {3, 7}, {17, 33}, {129, 1025}, {5, 32771}, {0, 9}};
  for_every_cpu_target([&] {
    for (const auto& [n, vocabulary] : shapes) {
      for (const double scale : {1.0, 15.0}) {
        const double z_loss = static_cast<float>(1e-2);
        const Matrix logits = random_matrix(n, vocabulary, 1, scale);
        std::vector<int32_t> targets;
        std::vector<uint8_t> mask;
        for (int64_t i = 0; i < n; ++i) {
          targets.push_back(static_cast<int32_t>((i * 7919) % vocabulary));
          mask.push_back(i % 3 != 1);
        }
        const auto expected = reference_cross_entropy(logits, targets, mask, z_loss);
        Call call(logits, targets, mask, 3);
        call.run(z_loss, LogitsBecome::gradient);
        // log Z is good to 1e-7 of itself and a rounding of the difference; a probability to its exponent's
        // rounding (logits up to 60: 4e-6), a gradient to the scale 1 + 2 z log Z besides.
        EXPECT_TRUE(close(call.log_probability.read(), expected.log_probability,
                          {.absolute = 5e-7, .relative = 1e-7}));
        EXPECT_TRUE(close(call.logits.read(), expected.gradient, {.absolute = 2e-7, .relative = 5e-6}));
        EXPECT_TRUE(
            close(call.sums.read(), Matrix(2, 1, {expected.loss_with_z, expected.loss}), {.relative = 5e-7}));
        EXPECT_TRUE(call.logits.padding_untouched());
      }
    }
  });
}

TEST(CrossEntropy, GradientOfItsOwnIsThatInPlaceRoundedOnce) {
  constexpr int64_t shapes[][2] = {{1, 1}, {3, 7}, {129, 1025}, {0, 9}};
  for_every_cpu_target([&] {
    Stream stream(2);
    for (const auto& [n, vocabulary] : shapes) {
      const Matrix logits = random_matrix(n, vocabulary, 6, 5.0);
      const std::vector<int32_t> targets(n, static_cast<int32_t>(vocabulary / 2));
      std::vector<uint8_t> mask(n, 1);
      if (n > 1) mask[1] = 0;
      Call in_place(logits, targets, mask), call(logits, targets, mask), narrowed(logits, targets, mask, 3);
      in_place.run(1e-2, LogitsBecome::gradient);
      const test::Bf16Tensor d_logits(Matrix(n, vocabulary, 9.0), 3);
      const DoubleTensor partials(1, kCrossEntropyPartialSize * n);
      cross_entropy_partials(stream, partials, call.logits, 0, call.targets.data(), call.mask.data(),
                             LogitsBecome::gradient);
      cross_entropy(stream, call.sums, call.log_probability, d_logits, call.logits, partials, 0, 0,
                    call.targets.data(), call.mask.data(), 1e-2F);
      EXPECT_EQ(d_logits.read().values, test::as_bf16(in_place.logits.read()).values)
          << n << " x " << vocabulary;
      EXPECT_EQ(call.sums.elements(), in_place.sums.elements());
      EXPECT_TRUE(d_logits.padding_untouched());
      narrowed.run(1e-2, LogitsBecome::gradient, 2, DType::bf16);
      EXPECT_EQ(narrowed.gradient_in_bf16().values, d_logits.read().values) << n << " x " << vocabulary;
      EXPECT_TRUE(narrowed.logits.padding_untouched());
    }
  });
}

TEST(CrossEntropy, LogitsStayWhenNoGradientIsWanted) {
  for_every_cpu_target([] {
    const Matrix logits = random_matrix(3, 65, 2);
    const auto expected = reference_cross_entropy(logits, {1, 2, 64}, {1, 0, 1}, 0.0);
    Call call(logits, {1, 2, 64}, {1, 0, 1});
    call.run(0.0, LogitsBecome::nothing);
    EXPECT_TRUE(close(call.logits.read(), logits, {}));
    EXPECT_TRUE(close(call.log_probability.read(), expected.log_probability, {.absolute = 5e-7}));
    EXPECT_TRUE(close(call.sums.read(), Matrix(2, 1, expected.loss), {.relative = 1e-7}));
  });
}

TEST(CrossEntropy, AddsToSumsAndNeedsNoLogProbability) {
  Stream stream(1);
  const DoubleTensor sums(Matrix(2, 1, {10.0, 20.0}));
  Call call(Matrix(2, 4, 0.0), {0, 99}, {1, 0});  // the target of a masked row is not looked at
  call.run(stream, sums, Tensor{}, 0.0, LogitsBecome::gradient);
  EXPECT_TRUE(
      close(sums.read(), Matrix(2, 1, {10.0 + std::log(4.0), 20.0 + std::log(4.0)}), {.relative = 1e-7}));
  EXPECT_TRUE(
      close(call.logits.read(), Matrix(2, 4, {-0.75, 0.25, 0.25, 0.25, 0, 0, 0, 0}), {.absolute = 1e-7}));
}

TEST(CrossEntropy, BitEqualForAnyNumberOfThreads) {
  const Matrix logits = random_matrix(300, 1025, 3);
  const std::vector<int32_t> targets(300, 5);
  const std::vector<uint8_t> mask(300, 1);
  Call first(logits, targets, mask);
  first.run(1e-4, LogitsBecome::gradient, 1);
  for (const int num_threads : {2, 3}) {
    Call call(logits, targets, mask);
    call.run(1e-4, LogitsBecome::gradient, num_threads);
    EXPECT_EQ(call.logits.elements(), first.logits.elements());
    EXPECT_EQ(call.sums.elements(), first.sums.elements());
  }
}

TEST(CrossEntropy, WhatIsNotFiniteReachesLossAndGradient) {
  for_every_cpu_target([] {
    for (const double wrong :
         {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
      for (const int64_t position : {0, 9, 36}) {
        Matrix logits = random_matrix(2, 37, 4);
        logits(1, position) = wrong;
        Call call(logits, {9, 9}, {1, 1});
        call.run(1e-4, LogitsBecome::gradient);
        EXPECT_FALSE(std::isfinite(call.sums.read()(0, 0)));
        EXPECT_FALSE(std::isfinite(call.sums.read()(1, 0)));
        EXPECT_TRUE(std::isnan(call.logits.read()(1, 3)));
        EXPECT_TRUE(std::isfinite(call.logits.read()(0, 3)));
      }
    }
  });
}

// Ranks with uneven shares of the columns, one of them with none, agree with float64 on the whole row.
TEST(CrossEntropy, ColumnsDividedOverRanks) {
  for_every_cpu_target([] {
    Stream stream(2);
    constexpr int64_t num_tokens = 9, vocabulary = 67;
    constexpr int64_t begins[] = {0, 13, 13, 14, 67};
    constexpr int64_t num_ranks = 4;
    const double z_loss = static_cast<float>(1e-2);
    const Matrix whole = random_matrix(num_tokens, vocabulary, 5, 20.0);
    const std::vector<int32_t> targets = {0, 12, 13, 14, 66, 1, 40, 13, 12};
    const std::vector<uint8_t> mask = {1, 1, 1, 1, 1, 0, 1, 1, 1};
    const auto expected = reference_cross_entropy(whole, targets, mask, z_loss);
    std::vector<std::unique_ptr<Call>> ranks;
    const DoubleTensor partials(num_ranks, kCrossEntropyPartialSize * num_tokens);
    for (int64_t r = 0; r < num_ranks; ++r) {
      Matrix own(num_tokens, begins[r + 1] - begins[r]);
      for (int64_t i = 0; i < num_tokens; ++i)
        for (int64_t j = 0; j < own.cols; ++j) own(i, j) = whole(i, begins[r] + j);
      ranks.push_back(std::make_unique<Call>(own, targets, mask));
      cross_entropy_partials(stream, partials.tensor().row_range(r, 1), ranks[r]->logits, begins[r],
                             ranks[r]->targets.data(), ranks[r]->mask.data(), LogitsBecome::gradient);
    }
    for (int64_t r = 0; r < num_ranks; ++r) {
      Call& call = *ranks[r];
      cross_entropy(stream, call.sums, call.log_probability, call.logits, call.logits, partials, r, begins[r],
                    call.targets.data(), call.mask.data(), static_cast<float>(z_loss));
      EXPECT_TRUE(
          close(call.log_probability.read(), expected.log_probability, {.absolute = 5e-7, .relative = 1e-7}));
      EXPECT_TRUE(
          close(call.sums.read(), Matrix(2, 1, {expected.loss_with_z, expected.loss}), {.relative = 5e-7}));
      EXPECT_EQ(call.sums.elements(), ranks[0]->sums.elements());
      const Matrix gradient = call.logits.read();
      for (int64_t i = 0; i < num_tokens; ++i)
        for (int64_t j = 0; j < gradient.cols; ++j)
          EXPECT_NEAR(gradient(i, j), expected.gradient(i, begins[r] + j), 5e-6) << r << " " << i << " " << j;
    }
  });
}

TEST(CrossEntropy, ExtremeLogitsStayFinite) {
  for_every_cpu_target([] {
    const Matrix logits(2, 3, {3e38, -3e38, 0.0, -2e4, -3e4, -2e4});
    const auto expected = reference_cross_entropy(logits, {0, 2}, {1, 1}, 0.0);
    Call call(logits, {0, 2}, {1, 1});
    call.run(0.0, LogitsBecome::gradient);
    EXPECT_TRUE(close(call.logits.read(), expected.gradient, {.absolute = 1e-7}));
    EXPECT_TRUE(close(call.sums.read(), Matrix(2, 1, expected.loss), {.relative = 1e-6}));
  });
}

TEST(CrossEntropy, RefusesTargetsOutsideTheVocabulary) {
  Call call(Matrix(1, 4, 0.0), {4}, {1});
  if (test::on_cpu()) {
    EXPECT_THROW(call.run(0.0, LogitsBecome::gradient), LogicError);
    return;
  }
  // On a GPU the loss is no number, and so the step is called off.
  call.run(0.0, LogitsBecome::gradient);
  EXPECT_TRUE(std::isnan(call.sums.read()(0, 0)));
}

}  // namespace
}  // namespace red::ops
