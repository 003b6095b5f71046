// Private to ops: what the two forms of Adafactor share on the CPU.
#pragma once

#include <algorithm>
#include <cmath>

#include "ops/adafactor.hpp"
#include "ops/blocks.hpp"

namespace red::ops {

/// Sums over some elements.
struct AdafactorSums {
  double u2 = 0.0, p2 = 0.0;
};

inline double value_of(const Tensor& scalar) {
  return *scalar.as<double>();
}

inline float* element(const Tensor& t, int64_t row, int64_t col) {
  return t.as<float>() + row * t.row_stride + col;
}

/// lr max(RMS(p), eps2) / max(1, RMS(u) / threshold): what u is multiplied with.
inline double adafactor_step_size(const Tensor& sum_u2, const Tensor& sum_p2, int64_t num_elements,
                                  const AdafactorScalars& scalars, const AdafactorRule& rule) {
  const double rms_u = std::sqrt(value_of(sum_u2) / static_cast<double>(num_elements));
  const double rms_p = std::sqrt(value_of(sum_p2) / static_cast<double>(num_elements));
  return value_of(scalars.learning_rate) * std::max(rms_p, rule.epsilon2) /
         std::max(1.0, rms_u / rule.clip_threshold);
}

/// What sum_rows() takes from scratch memory.
inline std::size_t sum_rows_scratch_bytes(int64_t rows, int64_t cols) {
  return Arena::rounded(static_cast<std::size_t>(Blocks(rows, cols).count() * 2) * sizeof(double));
}

/// sum_u2 and sum_p2 += row_sums(row, first column, number of columns) over all of `shape`, in the order of
/// the blocks.
template <class RowSums>
void sum_rows(Stream& stream, const Tensor& shape, const Tensor& sum_u2, const Tensor& sum_p2,
              const RowSums& row_sums) {
  const Blocks blocks(shape.rows, shape.cols);
  const ArenaScope scope(stream.scratch());
  const Tensor partial = stream.scratch().allocate<double>(blocks.count(), 2);
  stream.parallel_for(blocks.count(), [&](int64_t i) {
    const auto [first, col, rows, cols] = blocks[i];
    AdafactorSums total;
    for (int64_t row = first; row < first + rows; ++row) {
      const AdafactorSums sums = row_sums(row, col, cols);
      total.u2 += sums.u2;
      total.p2 += sums.p2;
    }
    partial.as<double>()[2 * i] = total.u2;
    partial.as<double>()[2 * i + 1] = total.p2;
  });
  for (int64_t i = 0; i < blocks.count(); ++i) {
    *sum_u2.as<double>() += partial.as<double>()[2 * i];
    *sum_p2.as<double>() += partial.as<double>()[2 * i + 1];
  }
}

}  // namespace red::ops
