// Three passes over a row, which stays in the second-level cache: its maximum; exp(x - max) and their sum;
// scaling.
#include <cmath>
#include <limits>

#include "ops/blocks.hpp"
#include "ops/cross_entropy.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/cross_entropy_cpu.cpp"
#include <hwy/foreach_target.h>

#include "ops/simd-inl.hpp"
// After simd-inl.hpp, for the same target.
#include <hwy/contrib/math/math-inl.h>

HWY_BEFORE_NAMESPACE();
namespace red::ops {
namespace HWY_NAMESPACE {
namespace {

/// NaN when there is one: neither maxima nor Exp pass it on.
float row_max(const float* x, int64_t n) {
  const FloatTag d;
  const float lowest = std::numeric_limits<float>::lowest();
  FloatVec max = hn::Set(d, -std::numeric_limits<float>::infinity());
  FloatVec nan = hn::Zero(d);
  for_each_vector(n, [&](auto access, int64_t i) HWY_ATTR {
    const FloatVec v = access.load_or(d, x + i, lowest);
    max = hn::Max(max, v);
    nan = hn::Or(nan, hn::VecFromMask(d, hn::IsNaN(v)));
  });
  if (!hn::AllFalse(d, hn::IsNaN(nan))) return std::numeric_limits<float>::quiet_NaN();
  return max_of_lanes(max);
}

/// Sum of exp(x - max); with kKeep they replace x. fp32 sums of a few terms each are added up in fp64.
template <bool kKeep>
double sum_of_exp(float* x, int64_t n, float max) {
  constexpr int64_t terms = 16;
  const FloatTag d;
  const FloatVec row = hn::Set(d, max);
  FloatVec partial = hn::Zero(d);
  DoubleSum sum;
  int64_t count = 0;
  for_each_vector(n, [&](auto access, int64_t i) HWY_ATTR {
    const FloatVec v = access.load_or(d, x + i, std::numeric_limits<float>::lowest());
    const FloatVec e = hn::Exp(d, hn::Sub(v, row));
    if constexpr (kKeep) access.store(e, d, x + i);
    partial = hn::Add(partial, e);
    if (++count % terms == 0) {
      sum.add(partial);
      partial = hn::Zero(d);
    }
  });
  sum.add(partial);
  return sum.total();
}

double sum_of_exp_only(float* x, int64_t n, float max) {
  return sum_of_exp<false>(x, n, max);
}
double sum_of_exp_in_place(float* x, int64_t n, float max) {
  return sum_of_exp<true>(x, n, max);
}

void scale_row(float* x, int64_t n, float factor) {
  const FloatTag d;
  const FloatVec f = hn::Set(d, factor);
  for_each_vector(
      n, [&](auto access, int64_t i) HWY_ATTR { access.store(hn::Mul(access.load(d, x + i), f), d, x + i); });
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace red::ops
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace red::ops {

HWY_EXPORT(row_max);
HWY_EXPORT(sum_of_exp_only);
HWY_EXPORT(sum_of_exp_in_place);
HWY_EXPORT(scale_row);

namespace {

struct RowLoss {
  double with_z = 0.0, plain = 0.0;
};

/// One row whose logits (V) may become exp(x - max) or their gradient. `counts`: it belongs to the loss.
RowLoss row_loss(float* x, int64_t vocabulary, int32_t target, bool counts, double z_loss, bool gradient,
                 float* log_probability) {
  RED_CHECK(target >= 0 && target < vocabulary, "target {}, vocabulary {}", target, vocabulary);
  const double target_logit = x[target];
  const float max = HWY_DYNAMIC_DISPATCH(row_max)(x, vocabulary);
  const bool keep = gradient && counts;
  // A logit that is not finite must reach the loss and the gradients, where it is looked for.
  double log_z = max, sum = std::numeric_limits<double>::quiet_NaN();
  if (std::isfinite(max)) {
    sum = keep ? HWY_DYNAMIC_DISPATCH(sum_of_exp_in_place)(x, vocabulary, max)
               : HWY_DYNAMIC_DISPATCH(sum_of_exp_only)(x, vocabulary, max);
    log_z = max + std::log(sum);
  }
  if (log_probability != nullptr) *log_probability = static_cast<float>(target_logit - log_z);
  if (!counts) return {};
  if (keep) {
    HWY_DYNAMIC_DISPATCH(scale_row)(x, vocabulary, static_cast<float>((1.0 + 2.0 * z_loss * log_z) / sum));
    x[target] -= 1.0F;
  }
  const double loss = log_z - target_logit;
  return {loss + z_loss * log_z * log_z, loss};
}

}  // namespace

void cross_entropy(Stream& stream, const Tensor& sums, const Tensor& log_probability, const Tensor& logits,
                   const int32_t* targets, const uint8_t* loss_mask, float z_loss, LogitsBecome become) {
  const int64_t num_tokens = logits.rows, vocabulary = logits.cols;
  RED_CHECK(sums.rows == 2 && sums.cols == 1, "sums ({}, {})", sums.rows, sums.cols);
  RED_CHECK(log_probability.empty() || log_probability.rows == num_tokens, "log_probability {}, logits {}",
            log_probability.rows, num_tokens);
  const bool gradient = become == LogitsBecome::gradient;
  const int64_t rows_per_task =
      std::max<int64_t>(1, 2 * Blocks::kElements / std::max<int64_t>(1, vocabulary));
  const ArenaScope scope(stream.scratch());
  RowLoss* losses = reinterpret_cast<RowLoss*>(stream.scratch().allocate<double>(num_tokens, 2).as<double>());
  stream.parallel_for((num_tokens + rows_per_task - 1) / rows_per_task, [&](int64_t task) {
    const int64_t end = std::min(num_tokens, (task + 1) * rows_per_task);
    for (int64_t i = task * rows_per_task; i < end; ++i) {
      float* x = logits.as<float>() + i * logits.row_stride;
      float* log_p =
          log_probability.empty() ? nullptr : log_probability.as<float>() + i * log_probability.row_stride;
      const bool counts = loss_mask[i] != 0;
      losses[i] = {};
      if (counts || log_p != nullptr)
        losses[i] = row_loss(x, vocabulary, targets[i], counts, z_loss, gradient, log_p);
      if (gradient && !counts) std::fill_n(x, vocabulary, 0.0F);
    }
  });
  double* total = sums.as<double>();
  for (int64_t i = 0; i < num_tokens; ++i) {
    total[0] += losses[i].with_z;
    total[sums.row_stride] += losses[i].plain;
  }
}

}  // namespace red::ops
#endif  // HWY_ONCE
