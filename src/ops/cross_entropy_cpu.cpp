// Cross-entropy on the CPU. Three passes over a row: its maximum; exp(x - max) and their sum, while it is in
// the cache; and, when all ranks' parts are known, scaling. Bound by bytes where memory is slow, 8 V read and
// 4 V written, and 2 V or 4 V behind them, and else by V exponentials. Shapes: n tokens, V own columns;
// partials (ranks, 3 n).
#include <cmath>
#include <cstring>
#include <limits>

#include "ops/blocks.hpp"
#include "ops/cross_entropy.hpp"
#include "ops/rows.hpp"

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

template <class T>
HWY_ATTR void scale_row_of(T* y, const float* x, int64_t n, float factor) {
  const FloatTag d;
  const FloatVec f = hn::Set(d, factor);
  for_each_vector(
      n, [&](auto access, int64_t i) HWY_ATTR { access.store(hn::Mul(access.load(d, x + i), f), d, y + i); });
}

/// y = factor x; y may be x, or begin where x does: elements are read in order and not behind where y is
/// written. One element, unless it is negative, gets 1 less.
void gradient_row(DType dtype, std::byte* y, const float* x, int64_t n, float factor, int64_t target) {
  with_element(dtype, [&](auto e) HWY_ATTR {
    using T = decltype(e);
    const float at_target = target < 0 ? 0.0F : x[target] * factor;
    scale_row_of(reinterpret_cast<T*>(y), x, n, factor);
    if (target >= 0) reinterpret_cast<T*>(y)[target] = T(at_target - 1.0F);
  });
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
HWY_EXPORT(gradient_row);

namespace {

using Partial = CrossEntropyPartial;

/// One row of own logits (V), which become exp(x - max) with `keep`. A logit that is not finite must reach
/// the loss and the gradients, where it is looked for.
Partial row_partial(float* x, int64_t vocabulary, int64_t own_target, bool keep) {
  Partial partial;
  if (own_target >= 0 && own_target < vocabulary) partial.target_logit = x[own_target];
  if (vocabulary == 0) return {-std::numeric_limits<double>::infinity(), 0.0, 0.0};
  const float max = HWY_DYNAMIC_DISPATCH(row_max)(x, vocabulary);
  partial.max = max;
  partial.sum = std::numeric_limits<double>::quiet_NaN();
  if (!std::isfinite(max)) return partial;
  partial.sum = keep ? HWY_DYNAMIC_DISPATCH(sum_of_exp_in_place)(x, vocabulary, max)
                     : HWY_DYNAMIC_DISPATCH(sum_of_exp_only)(x, vocabulary, max);
  return partial;
}

/// The whole row, from the parts in the order of ranks.
struct RowTotal {
  double max = -std::numeric_limits<double>::infinity();
  double sum = 0.0;  ///< of exp(logit - max)
  double target_logit = 0.0;

  double log_z() const { return max + std::log(sum); }
};

RowTotal row_total(const Tensor& partials, int64_t token) {
  RowTotal total;
  const auto part = [&](int64_t rank) -> const Partial& {
    return reinterpret_cast<const Partial*>(partials.as<double>() + rank * partials.row_stride)[token];
  };
  for (int64_t rank = 0; rank < partials.rows; ++rank) total.max = std::max(total.max, part(rank).max);
  for (int64_t rank = 0; rank < partials.rows; ++rank) {
    const Partial& p = part(rank);
    if (p.sum != 0.0) total.sum += p.sum * std::exp(p.max - total.max);  // NaN comes through
    total.target_logit += p.target_logit;
  }
  return total;
}

struct RowLoss {
  double with_z = 0.0, plain = 0.0;
};

/// body(first, end) over tasks of about two blocks of logits.
template <class Body>
void for_token_blocks(Stream& stream, const Tensor& logits, const Body& body) {
  const int64_t tokens = logits.rows;
  const int64_t each = std::max<int64_t>(1, 2 * Blocks::kElements / std::max<int64_t>(1, logits.cols));
  stream.parallel_for((tokens + each - 1) / each,
                      [&](int64_t task) { body(task * each, std::min(tokens, (task + 1) * each)); });
}

float* row_of(const Tensor& t, int64_t i) {
  return t.as<float>() + i * t.row_stride;
}

void check_partials(const Tensor& partials, const Tensor& logits) {
  static_assert(sizeof(Partial) == kCrossEntropyPartialSize * sizeof(double));
  RED_CHECK(partials.cols == kCrossEntropyPartialSize * logits.rows, "partials ({}, {}), {} tokens",
            partials.rows, partials.cols, logits.rows);
}

}  // namespace

void cross_entropy_partials(Stream& stream, const Tensor& partials, const Tensor& logits,
                            int64_t first_column, const int32_t* targets, const uint8_t* loss_mask,
                            LogitsBecome become) {
  check_partials(partials, logits);
  auto* out = reinterpret_cast<Partial*>(partials.as<double>());
  for_token_blocks(stream, logits, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const bool keep = become == LogitsBecome::gradient && loss_mask[i] != 0;
      out[i] = row_partial(row_of(logits, i), logits.cols, targets[i] - first_column, keep);
    }
  });
}

std::size_t cross_entropy_scratch_bytes(int64_t num_tokens) {
  return Arena::rounded(static_cast<std::size_t>(num_tokens) * sizeof(RowLoss));
}

void cross_entropy(Stream& stream, const Tensor& sums, const Tensor& log_probability, const Tensor& d_logits,
                   const Tensor& logits, const Tensor& partials, int64_t rank, int64_t first_column,
                   const int32_t* targets, const uint8_t* loss_mask, float z_loss) {
  const int64_t num_tokens = logits.rows, vocabulary = logits.cols;
  RED_CHECK(sums.rows == 2 && sums.cols == 1, "sums ({}, {})", sums.rows, sums.cols);
  RED_CHECK(log_probability.empty() || log_probability.rows == num_tokens, "log_probability {}, logits {}",
            log_probability.rows, num_tokens);
  RED_CHECK(rank >= 0 && rank < partials.rows, "rank {} of {}", rank, partials.rows);
  check_partials(partials, logits);
  if (!d_logits.empty()) check_same_shape(d_logits, logits);
  const auto* own = reinterpret_cast<const Partial*>(partials.as<double>() + rank * partials.row_stride);
  const ArenaScope scope(stream.scratch());
  RowLoss* losses = reinterpret_cast<RowLoss*>(stream.scratch().allocate<double>(num_tokens, 2).as<double>());
  for_token_blocks(stream, logits, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const RowTotal total = row_total(partials, i);
      const double log_z = total.log_z(), loss = log_z - total.target_logit;
      if (!log_probability.empty()) *row_of(log_probability, i) = static_cast<float>(-loss);
      const bool counts = loss_mask[i] != 0;
      losses[i] = counts ? RowLoss{loss + z_loss * log_z * log_z, loss} : RowLoss{};
      if (d_logits.empty()) continue;
      std::byte* gradient = element_at(d_logits, i, 0);
      if (!counts) {
        std::memset(gradient, 0, static_cast<std::size_t>(vocabulary) * size_of(d_logits.dtype));
        continue;
      }
      const double scale = (1.0 + 2.0 * z_loss * log_z) / total.sum * std::exp(own[i].max - total.max);
      const int64_t target = targets[i] - first_column;
      const bool is_own = target >= 0 && target < vocabulary;
      RED_CHECK(partials.rows > 1 || is_own, "target {}, vocabulary {}", target, vocabulary);
      HWY_DYNAMIC_DISPATCH(gradient_row)
      (d_logits.dtype, gradient, row_of(logits, i), vocabulary, static_cast<float>(scale),
       is_own ? target : -1);
    }
  });
  double* result = sums.as<double>();
  for (int64_t i = 0; i < num_tokens; ++i) {
    result[0] += losses[i].with_z;
    result[sums.row_stride] += losses[i].plain;
  }
}

}  // namespace red::ops
#endif  // HWY_ONCE
