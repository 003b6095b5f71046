// Unfactored Adafactor on a GPU: two passes, bound by bytes: 4 accesses of fp32 per element (v, g, p read, v
// written) and 4 (p, g, v read, p written). Shapes: p, g, v (r, c).
#include "ops/adafactor_cuda.cuh"

namespace red::ops {
namespace {

struct AccumulateArgs {
  const double *grad_scale, *decay, *apply;
  float epsilon;
};

template <int kN>
__global__ void __launch_bounds__(kSumThreads)
    accumulate_kernel(double* partials, RowsOf<float> v, RowsOf<const float> g, RowsOf<const float> p,
                      int64_t rows, int64_t cols, AccumulateArgs args) {
  const float scale = static_cast<float>(*args.grad_scale), decay = static_cast<float>(*args.decay);
  const float rest = static_cast<float>(1.0 - *args.decay);
  const bool apply = *args.apply != 0.0;
  double sums[2] = {};  // of u^2 and p^2
  for_each_element<kN>(rows, cols, [&](auto lanes, int64_t row, int64_t col) {
    constexpr int n = decltype(lanes)::value;
    float moment[n], gradient[n], parameter[n];
    load(moment, v.at(row, col));
    load(gradient, g.at(row, col));
    load(parameter, p.at(row, col));
#pragma unroll
    for (int i = 0; i < n; ++i) {
      const float scaled = gradient[i] * scale, square = scaled * scaled;
      moment[i] = decay * moment[i] + rest * (square + args.epsilon);
      sums[0] += square / moment[i];
      sums[1] += static_cast<double>(parameter[i]) * parameter[i];
    }
    if (apply) store(v.at(row, col), moment);
  });
  write_partial_sums(partials, sums);
}

/// p -= step g / sqrt(v)
template <int kN>
__global__ void __launch_bounds__(256)
    apply_kernel(RowsOf<float> p, RowsOf<const float> g, RowsOf<const float> v, int64_t rows, int64_t cols,
                 const double* grad_scale, const double* apply, StepSizeArgs step_args) {
  if (*apply == 0.0) return;
  const float step = shared_step_size(step_args), scale = static_cast<float>(*grad_scale);
  for_each_element<kN>(rows, cols, [&](auto lanes, int64_t row, int64_t col) {
    constexpr int n = decltype(lanes)::value;
    float parameter[n], gradient[n], moment[n];
    load(parameter, p.at(row, col));
    load(gradient, g.at(row, col));
    load(moment, v.at(row, col));
#pragma unroll
    for (int i = 0; i < n; ++i) parameter[i] -= step * (gradient[i] * scale / sqrtf(moment[i]));
    store(p.at(row, col), parameter);
  });
}

}  // namespace

std::size_t adafactor_scratch_bytes(int64_t, int64_t) {
  return partial_sums_bytes<2>();
}

void adafactor_accumulate(Stream& stream, const Tensor& v, const Tensor& g, const Tensor& p,
                          const Tensor& sum_u2, const Tensor& sum_p2, const AdafactorScalars& scalars,
                          const AdafactorRule& rule) {
  check_same_shape(v, g);
  check_same_shape(p, g);
  if (g.rows > 1 && all_contiguous({&v, &g, &p})) {
    adafactor_accumulate(stream, as_one_row(v), as_one_row(g), as_one_row(p), sum_u2, sum_p2, scalars, rule);
    return;
  }
  const AccumulateArgs args{scalars.grad_scale.as<double>(), scalars.decay.as<double>(),
                            scalars.apply.as<double>(), static_cast<float>(rule.epsilon1)};
  const auto run = [&](auto lanes) {
    constexpr int n = decltype(lanes)::value;
    const SumTargets<2> targets{{sum_u2.as<double>(), sum_p2.as<double>()}};
    sum_in_two_steps(stream, summing_grid(g.rows, g.cols, n), targets, [&](double* partials, dim3 grid) {
      launch(stream, accumulate_kernel<n>, grid, kSumThreads, partials, RowsOf<float>(v),
             RowsOf<const float>(g), RowsOf<const float>(p), g.rows, g.cols, args);
    });
  };
  with_float_lanes(run, v, g, p);
}

void adafactor_apply(Stream& stream, const Tensor& p, const Tensor& g, const Tensor& v, const Tensor& sum_u2,
                     const Tensor& sum_p2, int64_t num_elements, const AdafactorScalars& scalars,
                     const AdafactorRule& rule) {
  check_same_shape(v, g);
  check_same_shape(p, g);
  if (g.rows > 1 && all_contiguous({&v, &g, &p})) {
    adafactor_apply(stream, as_one_row(p), as_one_row(g), as_one_row(v), sum_u2, sum_p2, num_elements,
                    scalars, rule);
    return;
  }
  const StepSizeArgs step(sum_u2, sum_p2, num_elements, scalars, rule);
  const auto run = [&](auto lanes) {
    constexpr int n = decltype(lanes)::value;
    const auto [grid, block] = grid_over(g.rows, g.cols, n);
    launch(stream, apply_kernel<n>, grid, block, RowsOf<float>(p), RowsOf<const float>(g),
           RowsOf<const float>(v), g.rows, g.cols, scalars.grad_scale.as<double>(),
           scalars.apply.as<double>(), step);
  };
  with_float_lanes(run, v, g, p);
}

}  // namespace red::ops
