// Factored Adafactor on the CPU: second moments as means over rows and over columns. Three passes over the
// matrices, bound by bytes: g; g and p; g and p, p written. Sums are fp64, those of a column in the cache
// while a part of the rows goes by. Shapes: g, p (r, c); v_row, row_sum (r, 1); v_col, col_sum (c, 1).
#include <cmath>

#include "ops/adafactor.hpp"
#include "ops/adafactor_step.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/adafactor_factored_cpu.cpp"
#include <hwy/foreach_target.h>

#include "ops/simd-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace red::ops {
namespace HWY_NAMESPACE {
namespace {

/// col_sum[i] += (scale g[i])^2 + epsilon; returns their sum.
double squares_of_row(double* col_sum, const float* g, int64_t n, double scale, double epsilon) {
  const DoubleTag d;
  const HalfTag half;
  const DoubleVec factor = hn::Set(d, scale), least = hn::Set(d, epsilon);
  DoubleVec sum = hn::Zero(d);
  double rest = 0.0;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    const DoubleVec x = hn::Mul(hn::PromoteTo(d, hn::LoadU(half, g + i)), factor);
    const DoubleVec square = hn::MulAdd(x, x, least);
    hn::StoreU(hn::Add(hn::LoadU(d, col_sum + i), square), d, col_sum + i);
    sum = hn::Add(sum, square);
  }
  for (; i < n; ++i) {
    const double x = g[i] * scale, square = x * x + epsilon;
    col_sum[i] += square;
    rest += square;
  }
  return hn::GetLane(hn::SumOfLanes(d, sum)) + rest;
}

/// u = g row_factor col_factor
AdafactorSums factored_sums_of_row(const float* g, const float* p, const float* col_factor, int64_t n,
                                   float row_factor) {
  const FloatTag d;
  const FloatVec factor = hn::Set(d, row_factor);
  DoubleSum u2, p2;
  for_each_vector(n, [&](auto access, int64_t i) HWY_ATTR {
    u2.add_square(hn::Mul(hn::Mul(access.load(d, g + i), factor), access.load(d, col_factor + i)));
    p2.add_square(access.load(d, p + i));
  });
  return {u2.total(), p2.total()};
}

/// p -= step u
void apply_factored_row(float* p, const float* g, const float* col_factor, int64_t n, float row_factor,
                        float step) {
  const FloatTag d;
  const FloatVec factor = hn::Set(d, row_factor), size = hn::Set(d, step);
  for_each_vector(n, [&](auto access, int64_t i) HWY_ATTR {
    const FloatVec u = hn::Mul(hn::Mul(access.load(d, g + i), factor), access.load(d, col_factor + i));
    access.store(hn::NegMulAdd(size, u, access.load(d, p + i)), d, p + i);
  });
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace red::ops
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace red::ops {

HWY_EXPORT(squares_of_row);
HWY_EXPORT(factored_sums_of_row);
HWY_EXPORT(apply_factored_row);

namespace {

constexpr int64_t kColsPerTask = 1024;

/// Each part of the rows has column sums of its own, added in order afterwards; the number of parts depends
/// on the shape alone.
struct RowParts {
  int64_t rows, count;
};

RowParts row_parts(int64_t rows) {
  constexpr int64_t most_parts = 64, least_rows = 16;
  const int64_t rows_per_part = std::max(least_rows, (rows + most_parts - 1) / most_parts);
  return {rows_per_part, (rows + rows_per_part - 1) / rows_per_part};
}

/// What a row or column of g is multiplied with to give u.
class Factors {
 public:
  /// The columns' factors are made now, in scratch memory that lives as long as this.
  Factors(Stream& stream, const Tensor& v_row, const Tensor& v_col, const Tensor& row_total, int64_t num_rows,
          const AdafactorScalars& scalars)
      : scope_(stream.scratch()),
        v_row_(v_row),
        mean_(value_of(row_total) / static_cast<double>(num_rows)),
        scale_(value_of(scalars.grad_scale)),
        col_(stream.scratch().allocate<float>(v_col.rows, 1).as<float>()) {
    for (int64_t i = 0; i < v_col.rows; ++i) {
      col_[i] = static_cast<float>(1.0 / std::sqrt(static_cast<double>(*element(v_col, i, 0))));
    }
  }

  float row(int64_t i) const {
    return static_cast<float>(scale_ / std::sqrt(static_cast<double>(*element(v_row_, i, 0)) / mean_));
  }
  const float* col(int64_t first) const { return col_ + first; }

 private:
  ArenaScope scope_;
  Tensor v_row_;
  double mean_, scale_;
  float* col_;
};

void check_factors(const Tensor& g, const Tensor& p, const Tensor& v_row, const Tensor& v_col) {
  check_same_shape(p, g);
  RED_CHECK(v_row.rows == g.rows && v_col.rows == g.cols, "g ({}, {}), v_row {}, v_col {}", g.rows, g.cols,
            v_row.rows, v_col.rows);
}

}  // namespace

std::size_t adafactor_factored_scratch_bytes(int64_t rows, int64_t cols) {
  const auto width = static_cast<std::size_t>(cols);
  const auto parts = static_cast<std::size_t>(row_parts(rows).count);
  return std::max(Arena::rounded(parts * width * sizeof(double)),
                  Arena::rounded(width * sizeof(float)) + sum_rows_scratch_bytes(rows, cols));
}

void adafactor_factored_sums(Stream& stream, const Tensor& row_sum, const Tensor& col_sum, const Tensor& g,
                             const AdafactorScalars& scalars, const AdafactorRule& rule) {
  RED_CHECK(row_sum.rows == g.rows && col_sum.rows == g.cols, "g ({}, {}), row_sum {}, col_sum {}", g.rows,
            g.cols, row_sum.rows, col_sum.rows);
  const RowParts parts = row_parts(g.rows);
  const double scale = value_of(scalars.grad_scale);
  const ArenaScope scope(stream.scratch());
  double* partial = stream.scratch().allocate<double>(parts.count, g.cols).as<double>();
  stream.parallel_for(parts.count, [&](int64_t part) {
    double* sums = partial + part * g.cols;
    std::fill_n(sums, g.cols, 0.0);
    const int64_t end = std::min(g.rows, (part + 1) * parts.rows);
    for (int64_t row = part * parts.rows; row < end; ++row) {
      row_sum.as<double>()[row * row_sum.row_stride] =
          HWY_DYNAMIC_DISPATCH(squares_of_row)(sums, element(g, row, 0), g.cols, scale, rule.epsilon1);
    }
  });
  stream.parallel_for((g.cols + kColsPerTask - 1) / kColsPerTask, [&](int64_t task) {
    const int64_t end = std::min(g.cols, (task + 1) * kColsPerTask);
    for (int64_t part = 0; part < parts.count; ++part) {
      const double* sums = partial + part * g.cols;
      for (int64_t col = task * kColsPerTask; col < end; ++col) {
        col_sum.as<double>()[col * col_sum.row_stride] += sums[col];
      }
    }
  });
}

void adafactor_factored_update(Stream&, const Tensor& stat, const Tensor& sum, int64_t count,
                               const Tensor& total, const AdafactorScalars& scalars) {
  RED_CHECK(stat.rows == sum.rows, "stat {}, sum {}", stat.rows, sum.rows);
  // One value per row or column: too few to share out.
  const double decay = value_of(scalars.decay);
  const bool apply = value_of(scalars.apply) != 0.0;
  double all = 0.0;
  for (int64_t i = 0; i < stat.rows; ++i) {
    float* moment = element(stat, i, 0);
    const double mean = sum.as<double>()[i * sum.row_stride] / static_cast<double>(count);
    const auto updated = static_cast<float>(decay * *moment + (1.0 - decay) * mean);
    if (apply) *moment = updated;
    all += updated;
  }
  *total.as<double>() += all;
}

void adafactor_factored_accumulate(Stream& stream, const Tensor& g, const Tensor& p, const Tensor& v_row,
                                   const Tensor& v_col, const Tensor& row_total, int64_t num_rows,
                                   const Tensor& sum_u2, const Tensor& sum_p2,
                                   const AdafactorScalars& scalars) {
  check_factors(g, p, v_row, v_col);
  const Factors factors(stream, v_row, v_col, row_total, num_rows, scalars);
  sum_rows(stream, g, sum_u2, sum_p2, [&](int64_t row, int64_t col, int64_t n) {
    return HWY_DYNAMIC_DISPATCH(factored_sums_of_row)(element(g, row, col), element(p, row, col),
                                                      factors.col(col), n, factors.row(row));
  });
}

void adafactor_factored_apply(Stream& stream, const Tensor& p, const Tensor& g, const Tensor& v_row,
                              const Tensor& v_col, const Tensor& row_total, int64_t num_rows,
                              const Tensor& sum_u2, const Tensor& sum_p2, int64_t num_elements,
                              const AdafactorScalars& scalars, const AdafactorRule& rule) {
  check_factors(g, p, v_row, v_col);
  if (value_of(scalars.apply) == 0.0) return;
  const Factors factors(stream, v_row, v_col, row_total, num_rows, scalars);
  const auto step = static_cast<float>(adafactor_step_size(sum_u2, sum_p2, num_elements, scalars, rule));
  const Blocks blocks(g.rows, g.cols);
  stream.parallel_for(blocks.count(), [&](int64_t i) {
    const auto [first, col, rows, cols] = blocks[i];
    for (int64_t row = first; row < first + rows; ++row) {
      HWY_DYNAMIC_DISPATCH(apply_factored_row)
      (element(p, row, col), element(g, row, col), factors.col(col), cols, factors.row(row), step);
    }
  });
}

}  // namespace red::ops
#endif  // HWY_ONCE
