// Factored Adafactor on a GPU: second moments as means over rows and over columns. Three passes over the
// matrices, bound by bytes: g; g and p; g and p, p written. What is as long as a row or a column costs
// nothing beside them. Shapes: g, p (r, c); v_row, row_sum (r, 1); v_col, col_sum (c, 1).
#include "ops/adafactor_cuda.cuh"

namespace red::ops {
namespace {

// A block of the sums: kSumWarps warps that take turns at a part of the rows, kTileCols columns.
constexpr int kSumWarps = 8, kTileCols = 4 * kWarp;

/// The number of parts depends on the shape alone.
struct RowParts {
  explicit RowParts(int64_t rows)
      : size(std::max<int64_t>(16, pieces(rows, 64))), count(pieces(rows, size)) {}
  int64_t size, count;
};

int64_t num_tiles(int64_t cols) {
  return pieces(cols, kTileCols);
}

struct SumsArgs {
  double* of_rows;  // (tiles, r): a row's sum in each tile of columns
  double* of_cols;  // (parts, c): a column's sum in each part of the rows
  RowsOf<const float> g;
  int64_t rows, cols, part;
  const double* grad_scale;
  double epsilon;
};

template <int kN>
__global__ void __launch_bounds__(kSumWarps* kWarp) factored_sums_kernel(SumsArgs a) {
  __shared__ double of_warp[kSumWarps][kTileCols];
  constexpr int groups = 4 / kN;  // of kN columns, a warp apart
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  const int64_t first_col = static_cast<int64_t>(blockIdx.x) * kTileCols;
  const int64_t begin = blockIdx.y * a.part, end = min(a.rows, begin + a.part);
  const double scale = *a.grad_scale;
  double sums[groups][kN] = {};
  for (int64_t row = begin + warp; row < end; row += kSumWarps) {
    double of_row = 0.0;
#pragma unroll
    for (int group = 0; group < groups; ++group) {
      const int64_t col = first_col + (group * kWarp + lane) * kN;
      float g[kN];
      load_some(g, a.g.at(row, col), a.cols - col);
#pragma unroll
      for (int i = 0; i < kN; ++i) {
        const double x = g[i] * scale, square = col + i < a.cols ? x * x + a.epsilon : 0.0;
        sums[group][i] += square;
        of_row += square;
      }
    }
    of_row = warp_sum(of_row);
    if (lane == 0) a.of_rows[blockIdx.x * a.rows + row] = of_row;
  }
#pragma unroll
  for (int group = 0; group < groups; ++group) {
#pragma unroll
    for (int i = 0; i < kN; ++i) of_warp[warp][(group * kWarp + lane) * kN + i] = sums[group][i];
  }
  __syncthreads();
  for (int64_t i = threadIdx.x; i < kTileCols && first_col + i < a.cols; i += blockDim.x) {
    double total = 0.0;
    for (int w = 0; w < kSumWarps; ++w) total += of_warp[w][i];
    a.of_cols[blockIdx.y * a.cols + first_col + i] = total;
  }
}

/// sum[i] = or += the sum of parts (num_parts, n) over the parts, in order
template <bool kAdd>
__global__ void add_parts_kernel(RowsOf<double> sum, const double* parts, int64_t num_parts, int64_t n) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= n) return;
  double total = kAdd ? sum(i) : 0.0;
  for (int64_t part = 0; part < num_parts; ++part) total += parts[part * n + i];
  sum(i) = total;
}

/// One block: few values, whose sum is wanted.
__global__ void __launch_bounds__(1024)
    factored_update_kernel(RowsOf<float> stat, RowsOf<const double> sum, int64_t n, double count,
                           double* total, const double* decay, const double* apply) {
  double all = 0.0;
  for (int64_t i = threadIdx.x; i < n; i += blockDim.x) {
    const auto updated = static_cast<float>(*decay * stat(i) + (1.0 - *decay) * (sum(i) / count));
    if (*apply != 0.0) stat(i) = updated;
    all += updated;
  }
  all = block_sum(all);
  if (threadIdx.x == 0) *total += all;
}

/// What rows and columns of g are multiplied with to give u: row (r), col (c).
struct Factors {
  float *row, *col;
};

__global__ void factors_kernel(Factors factors, RowsOf<const float> v_row, RowsOf<const float> v_col,
                               int64_t rows, int64_t cols, const double* row_total, double num_rows,
                               const double* grad_scale) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < rows) {
    const double mean = *row_total / num_rows;
    factors.row[i] = static_cast<float>(*grad_scale / sqrt(static_cast<double>(v_row(i)) / mean));
  } else if (i < rows + cols) {
    factors.col[i - rows] = static_cast<float>(1.0 / sqrt(static_cast<double>(v_col(i - rows))));
  }
}

template <int kN>
__global__ void __launch_bounds__(kSumThreads)
    factored_accumulate_kernel(double* partials, RowsOf<const float> g, RowsOf<const float> p, int64_t rows,
                               int64_t cols, Factors factors) {
  double sums[2] = {};  // of u^2 and p^2
  for_each_element<kN>(rows, cols, [&](auto lanes, int64_t row, int64_t col) {
    constexpr int n = decltype(lanes)::value;
    float u[n], parameter[n], factor[n];
    load(u, g.at(row, col));
    load(parameter, p.at(row, col));
    load(factor, factors.col + col);
#pragma unroll
    for (int i = 0; i < n; ++i) {
      u[i] = u[i] * factors.row[row] * factor[i];
      sums[0] += static_cast<double>(u[i]) * u[i];
      sums[1] += static_cast<double>(parameter[i]) * parameter[i];
    }
  });
  write_partial_sums(partials, sums);
}

/// p -= step u
template <int kN>
__global__ void __launch_bounds__(256)
    factored_apply_kernel(RowsOf<float> p, RowsOf<const float> g, int64_t rows, int64_t cols, Factors factors,
                          const double* apply, StepSizeArgs step_args) {
  if (*apply == 0.0) return;
  const float step = shared_step_size(step_args);
  for_each_element<kN>(rows, cols, [&](auto lanes, int64_t row, int64_t col) {
    constexpr int n = decltype(lanes)::value;
    float u[n], parameter[n], factor[n];
    load(u, g.at(row, col));
    load(parameter, p.at(row, col));
    load(factor, factors.col + col);
#pragma unroll
    for (int i = 0; i < n; ++i) parameter[i] -= step * (u[i] * factors.row[row] * factor[i]);
    store(p.at(row, col), parameter);
  });
}

void check_factors(const Tensor& g, const Tensor& p, const Tensor& v_row, const Tensor& v_col) {
  check_same_shape(p, g);
  RED_CHECK(v_row.rows == g.rows && v_col.rows == g.cols, "g ({}, {}), v_row {}, v_col {}", g.rows, g.cols,
            v_row.rows, v_col.rows);
}

std::size_t factors_bytes(int64_t rows, int64_t cols) {
  return Arena::rounded(static_cast<std::size_t>(rows) * sizeof(float)) +
         Arena::rounded(static_cast<std::size_t>(cols) * sizeof(float));
}

/// In scratch memory.
Factors make_factors(Stream& stream, const Tensor& v_row, const Tensor& v_col, const Tensor& row_total,
                     int64_t num_rows, const AdafactorScalars& scalars) {
  const Factors factors{stream.scratch().allocate<float>(v_row.rows, 1).as<float>(),
                        stream.scratch().allocate<float>(v_col.rows, 1).as<float>()};
  const int64_t all = v_row.rows + v_col.rows;
  launch(stream, factors_kernel, static_cast<unsigned>(pieces(all, 128)), 128, factors,
         RowsOf<const float>(v_row), RowsOf<const float>(v_col), v_row.rows, v_col.rows,
         row_total.as<double>(), static_cast<double>(num_rows), scalars.grad_scale.as<double>());
  return factors;
}

}  // namespace

std::size_t adafactor_factored_scratch_bytes(int64_t rows, int64_t cols) {
  const auto of_rows = static_cast<std::size_t>(rows * num_tiles(cols)) * sizeof(double);
  const auto of_cols = static_cast<std::size_t>(cols * RowParts(rows).count) * sizeof(double);
  return std::max(Arena::rounded(of_rows) + Arena::rounded(of_cols),
                  factors_bytes(rows, cols) + partial_sums_bytes<2>());
}

void adafactor_factored_sums(Stream& stream, const Tensor& row_sum, const Tensor& col_sum, const Tensor& g,
                             const AdafactorScalars& scalars, const AdafactorRule& rule) {
  RED_CHECK(row_sum.rows == g.rows && col_sum.rows == g.cols, "g ({}, {}), row_sum {}, col_sum {}", g.rows,
            g.cols, row_sum.rows, col_sum.rows);
  const RowParts parts(g.rows);
  const int64_t tiles = num_tiles(g.cols);
  const ArenaScope scope(stream.scratch());
  const SumsArgs args{stream.scratch().allocate<double>(tiles, g.rows).as<double>(),
                      stream.scratch().allocate<double>(parts.count, g.cols).as<double>(),
                      RowsOf<const float>(g),
                      g.rows,
                      g.cols,
                      parts.size,
                      scalars.grad_scale.as<double>(),
                      rule.epsilon1};
  const dim3 grid(static_cast<unsigned>(tiles), static_cast<unsigned>(parts.count));
  with_float_lanes(
      [&](auto lanes) {
        launch(stream, factored_sums_kernel<decltype(lanes)::value>, grid, kSumWarps * kWarp, args);
      },
      g);
  launch(stream, add_parts_kernel<false>, static_cast<unsigned>(pieces(g.rows, 128)), 128,
         RowsOf<double>(row_sum), args.of_rows, tiles, g.rows);
  launch(stream, add_parts_kernel<true>, static_cast<unsigned>(pieces(g.cols, 128)), 128,
         RowsOf<double>(col_sum), args.of_cols, parts.count, g.cols);
}

void adafactor_factored_update(Stream& stream, const Tensor& stat, const Tensor& sum, int64_t count,
                               const Tensor& total, const AdafactorScalars& scalars) {
  RED_CHECK(stat.rows == sum.rows, "stat {}, sum {}", stat.rows, sum.rows);
  launch(stream, factored_update_kernel, 1, threads_for(stat.rows, 1024), RowsOf<float>(stat),
         RowsOf<const double>(sum), stat.rows, static_cast<double>(count), total.as<double>(),
         scalars.decay.as<double>(), scalars.apply.as<double>());
}

void adafactor_factored_accumulate(Stream& stream, const Tensor& g, const Tensor& p, const Tensor& v_row,
                                   const Tensor& v_col, const Tensor& row_total, int64_t num_rows,
                                   const Tensor& sum_u2, const Tensor& sum_p2,
                                   const AdafactorScalars& scalars) {
  check_factors(g, p, v_row, v_col);
  const ArenaScope scope(stream.scratch());
  const Factors factors = make_factors(stream, v_row, v_col, row_total, num_rows, scalars);
  const auto run = [&](auto lanes) {
    constexpr int n = decltype(lanes)::value;
    const SumTargets<2> targets{{sum_u2.as<double>(), sum_p2.as<double>()}};
    sum_in_two_steps(stream, summing_grid(g.rows, g.cols, n), targets, [&](double* partials, dim3 grid) {
      launch(stream, factored_accumulate_kernel<n>, grid, kSumThreads, partials, RowsOf<const float>(g),
             RowsOf<const float>(p), g.rows, g.cols, factors);
    });
  };
  with_float_lanes(run, g, p);
}

void adafactor_factored_apply(Stream& stream, const Tensor& p, const Tensor& g, const Tensor& v_row,
                              const Tensor& v_col, const Tensor& row_total, int64_t num_rows,
                              const Tensor& sum_u2, const Tensor& sum_p2, int64_t num_elements,
                              const AdafactorScalars& scalars, const AdafactorRule& rule) {
  check_factors(g, p, v_row, v_col);
  const ArenaScope scope(stream.scratch());
  const Factors factors = make_factors(stream, v_row, v_col, row_total, num_rows, scalars);
  const StepSizeArgs step(sum_u2, sum_p2, num_elements, scalars, rule);
  const auto run = [&](auto lanes) {
    constexpr int n = decltype(lanes)::value;
    const auto [grid, block] = grid_over(g.rows, g.cols, n);
    launch(stream, factored_apply_kernel<n>, grid, block, RowsOf<float>(p), RowsOf<const float>(g), g.rows,
           g.cols, factors, scalars.apply.as<double>(), step);
  };
  with_float_lanes(run, g, p);
}

}  // namespace red::ops
