// Sum of squares on a GPU: one read of x, bound by bytes.
#include "ops/blocks.hpp"
#include "ops/cuda_partials.cuh"
#include "ops/cuda_rows.cuh"
#include "ops/reduce.hpp"

namespace red::ops {
namespace {

template <int kN>
__global__ void __launch_bounds__(kSumThreads)
    sum_of_squares_kernel(double* partials, RowsOf<const float> x, int64_t rows, int64_t cols) {
  double sums[1] = {};
  for_each_element<kN>(rows, cols, [&](auto lanes, int64_t row, int64_t col) {
    float v[decltype(lanes)::value];
    load(v, x.at(row, col));
    for (const float value : v) sums[0] += static_cast<double>(value) * value;
  });
  write_partial_sums(partials, sums);
}

}  // namespace

std::size_t sum_of_squares_scratch_bytes(int64_t) {
  return partial_sums_bytes<1>();
}

void sum_of_squares(Stream& stream, const Tensor& sum, const Tensor& given) {
  const Tensor x = given.contiguous() ? as_one_row(given) : given;
  const auto run = [&](auto lanes) {
    constexpr int n = decltype(lanes)::value;
    const SumTargets<1> target{{sum.as<double>()}};
    sum_in_two_steps(stream, summing_grid(x.rows, x.cols, n), target, [&](double* partials, dim3 grid) {
      launch(stream, sum_of_squares_kernel<n>, grid, kSumThreads, partials, RowsOf<const float>(x), x.rows,
             x.cols);
    });
  };
  RED_CHECK(x.dtype == DType::fp32, "{} squared", name_of(x.dtype));
  in_vectors(4, x) ? run(Lanes<4>()) : run(Lanes<1>());
}

}  // namespace red::ops
