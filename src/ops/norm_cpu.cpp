// RMSNorm on the CPU. Each pass reads a row from memory once: the second look at it finds it in the cache.
// Shapes: n rows, d columns; see norm.hpp.
#include <cmath>

#include "ops/blocks.hpp"
#include "ops/norm.hpp"
#include "ops/row_blocks.hpp"
#include "ops/rows.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/norm_cpu.cpp"
#include <hwy/foreach_target.h>  // compiles this file again for each target

#include "ops/row_loops-inl.hpp"

#ifndef RED_OPS_NORM_CPU_ARGS
#define RED_OPS_NORM_CPU_ARGS
namespace red::ops {
namespace {

/// What the passes over rows need; an op fills what it uses.
struct NormArgs {
  DType dtype = DType::fp32;  // of the (n, d) matrices
  int64_t width = 0;          // d
  float epsilon = 0;
  Rows x = {}, branch = {}, x_out = {}, y = {}, residual = {}, dy = {}, dx = {};  // (n, d)
  Rows inv_rms = {};                                                              // (n, 1) fp32
  const float* gain = nullptr;                                                    // (d)
};

}  // namespace
}  // namespace red::ops
#endif  // RED_OPS_NORM_CPU_ARGS

HWY_BEFORE_NAMESPACE();
namespace red::ops {
namespace HWY_NAMESPACE {
namespace {

// y = x inv_rms gain
template <class T>
HWY_ATTR void scale_row(T* y, const T* x, float inv_rms, const float* gain, int64_t width) {
  const FloatTag d;
  for_each_vector(width, [&](auto access, int64_t i) HWY_ATTR {
    const auto n = hn::Mul(access.load(d, x + i), hn::Set(d, inv_rms));
    access.store(hn::Mul(n, access.load(d, gain + i)), d, y + i);
  });
}

template <class T>
HWY_ATTR void norm_rows_of(const NormArgs& a, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    const T* x = a.x.at<T>(row);
    const float mean = sum_of_squares_row(x, a.width) / static_cast<float>(a.width);
    const float inv_rms = 1.0F / std::sqrt(mean + a.epsilon);
    *a.inv_rms.at<float>(row) = inv_rms;
    scale_row(a.y.at<T>(row), x, inv_rms, a.gain, a.width);
  }
}

template <class T>
HWY_ATTR void add_norm_rows_of(const NormArgs& a, int64_t begin, int64_t end) {
  const FloatTag d;
  for (int64_t row = begin; row < end; ++row) {
    const T* x = a.x.at<T>(row);
    const T* branch = a.branch.at<T>(row);
    T* x_out = a.x_out.at<T>(row);
    const float squares = sum_row(a.width, [&](auto access, int64_t i, FloatVec sum) HWY_ATTR {
      // Of what x_out will hold, so that a norm that is made again from it has the same bits.
      const auto v = as_stored<T>(hn::Add(access.load(d, x + i), access.load(d, branch + i)));
      access.store(v, d, x_out + i);
      return hn::MulAdd(v, v, sum);
    });
    const float inv_rms = 1.0F / std::sqrt(squares / static_cast<float>(a.width) + a.epsilon);
    *a.inv_rms.at<float>(row) = inv_rms;
    scale_row(a.y.at<T>(row), x_out, inv_rms, a.gain, a.width);
  }
}

template <class T>
HWY_ATTR void recompute_rows_of(const NormArgs& a, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    scale_row(a.y.at<T>(row), a.x.at<T>(row), *a.inv_rms.at<float>(row), a.gain, a.width);
  }
}

// With n = x inv_rms and dn = dy gain: dx = residual + inv_rms (dn - n mean(n dn)).
template <class T>
HWY_ATTR void backward_input_rows_of(const NormArgs& a, int64_t begin, int64_t end) {
  const FloatTag d;
  for (int64_t row = begin; row < end; ++row) {
    const T* x = a.x.at<T>(row);
    const T* dy = a.dy.at<T>(row);
    const T* residual = a.residual.data == nullptr ? nullptr : a.residual.at<T>(row);
    T* dx = a.dx.at<T>(row);
    const float inv_rms = *a.inv_rms.at<float>(row);
    const float dot = sum_row(a.width, [&](auto access, int64_t i, FloatVec sum) HWY_ATTR {
      const auto dn = hn::Mul(access.load(d, dy + i), access.load(d, a.gain + i));
      return hn::MulAdd(dn, access.load(d, x + i), sum);
    });
    const float along = dot * inv_rms / static_cast<float>(a.width) * inv_rms * inv_rms;
    for_each_vector(a.width, [&](auto access, int64_t i) HWY_ATTR {
      const auto dn = hn::Mul(access.load(d, dy + i), access.load(d, a.gain + i));
      auto sum = hn::Mul(dn, hn::Set(d, inv_rms));
      sum = hn::NegMulAdd(access.load(d, x + i), hn::Set(d, along), sum);
      if (residual != nullptr) sum = hn::Add(sum, access.load(d, residual + i));
      access.store(sum, d, dx + i);
    });
  }
}

// partial (d) = sum over the rows of dy x inv_rms. Four rows at a time, so that partial is touched less.
template <class T>
HWY_ATTR void backward_gain_rows_of(const NormArgs& a, int64_t begin, int64_t end, float* partial) {
  const FloatTag d;
  for_each_vector(a.width,
                  [&](auto access, int64_t i) HWY_ATTR { access.store(hn::Zero(d), d, partial + i); });
  int64_t row = begin;
  for (; row + 4 <= end; row += 4) {
    for_each_vector(a.width, [&](auto access, int64_t i) HWY_ATTR {
      auto sum = access.load(d, partial + i);
      for (int64_t r = row; r < row + 4; ++r) {
        const auto n = hn::Mul(access.load(d, a.x.at<T>(r) + i), hn::Set(d, *a.inv_rms.at<float>(r)));
        sum = hn::MulAdd(access.load(d, a.dy.at<T>(r) + i), n, sum);
      }
      access.store(sum, d, partial + i);
    });
  }
  for (; row < end; ++row) {
    const float inv_rms = *a.inv_rms.at<float>(row);
    for_each_vector(a.width, [&](auto access, int64_t i) HWY_ATTR {
      const auto n = hn::Mul(access.load(d, a.x.at<T>(row) + i), hn::Set(d, inv_rms));
      access.store(hn::MulAdd(access.load(d, a.dy.at<T>(row) + i), n, access.load(d, partial + i)), d,
                   partial + i);
    });
  }
}

void norm_rows(const NormArgs& a, int64_t begin, int64_t end) {
  with_element(a.dtype, [&](auto e) HWY_ATTR { norm_rows_of<decltype(e)>(a, begin, end); });
}
void add_norm_rows(const NormArgs& a, int64_t begin, int64_t end) {
  with_element(a.dtype, [&](auto e) HWY_ATTR { add_norm_rows_of<decltype(e)>(a, begin, end); });
}
void recompute_rows(const NormArgs& a, int64_t begin, int64_t end) {
  with_element(a.dtype, [&](auto e) HWY_ATTR { recompute_rows_of<decltype(e)>(a, begin, end); });
}
void backward_input_rows(const NormArgs& a, int64_t begin, int64_t end) {
  with_element(a.dtype, [&](auto e) HWY_ATTR { backward_input_rows_of<decltype(e)>(a, begin, end); });
}
void backward_gain_rows(const NormArgs& a, int64_t begin, int64_t end, float* partial) {
  with_element(a.dtype, [&](auto e) HWY_ATTR { backward_gain_rows_of<decltype(e)>(a, begin, end, partial); });
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace red::ops
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace red::ops {
namespace {

HWY_EXPORT(norm_rows);
HWY_EXPORT(add_norm_rows);
HWY_EXPORT(recompute_rows);
HWY_EXPORT(backward_input_rows);
HWY_EXPORT(backward_gain_rows);

constexpr int64_t kMinChunk = 128, kMaxChunks = 64;  // of rows, in sums over tokens

void check_inv_rms(const Tensor& inv_rms, const Tensor& x) {
  RED_CHECK(inv_rms.rows == x.rows && inv_rms.cols == 1 && inv_rms.dtype == DType::fp32,
            "({}, {}) {} for {} rows", inv_rms.rows, inv_rms.cols, name_of(inv_rms.dtype), x.rows);
}

const float* checked_gain(const Tensor& gain, int64_t width) {
  RED_CHECK(gain.rows == width && gain.cols == 1 && gain.row_stride == 1, "({}, {}) for width {}", gain.rows,
            gain.cols, width);
  return gain.as<float>();
}

}  // namespace

void rms_norm(Stream& stream, const Tensor& y, const Tensor& inv_rms, const Tensor& x, const Tensor& gain,
              float epsilon) {
  check_same_shape(y, x);
  check_same_dtype(x, y);
  check_inv_rms(inv_rms, x);
  NormArgs args{.dtype = x.dtype,
                .width = x.cols,
                .epsilon = epsilon,
                .x = Rows(x),
                .y = Rows(y),
                .inv_rms = Rows(inv_rms)};
  args.gain = checked_gain(gain, x.cols);
  for_row_blocks(stream, x.rows, x.cols, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(norm_rows)(args, begin, end);
  });
}

void add_rms_norm(Stream& stream, const Tensor& x_out, const Tensor& y, const Tensor& inv_rms,
                  const Tensor& x, const Tensor& branch, const Tensor& gain, float epsilon) {
  check_same_shape(y, x);
  check_same_shape(x_out, x);
  check_same_shape(branch, x);
  check_same_dtype(x, x_out, y, branch);
  check_inv_rms(inv_rms, x);
  NormArgs args{.dtype = x.dtype, .width = x.cols, .epsilon = epsilon, .x = Rows(x), .branch = Rows(branch)};
  args.x_out = Rows(x_out);
  args.y = Rows(y);
  args.inv_rms = Rows(inv_rms);
  args.gain = checked_gain(gain, x.cols);
  for_row_blocks(stream, x.rows, x.cols, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(add_norm_rows)(args, begin, end);
  });
}

void rms_norm_recompute(Stream& stream, const Tensor& y, const Tensor& x, const Tensor& inv_rms,
                        const Tensor& gain) {
  check_same_shape(y, x);
  check_same_dtype(x, y);
  check_inv_rms(inv_rms, x);
  NormArgs args{.dtype = x.dtype, .width = x.cols, .x = Rows(x), .y = Rows(y), .inv_rms = Rows(inv_rms)};
  args.gain = checked_gain(gain, x.cols);
  for_row_blocks(stream, x.rows, x.cols, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(recompute_rows)(args, begin, end);
  });
}

void rms_norm_backward_input(Stream& stream, const Tensor& dx, const Tensor& residual, const Tensor& dy,
                             const Tensor& x, const Tensor& inv_rms, const Tensor& gain) {
  check_same_shape(dx, x);
  check_same_shape(dy, x);
  if (!residual.empty()) check_same_shape(residual, x);
  check_same_dtype(x, dx, residual, dy);
  check_inv_rms(inv_rms, x);
  NormArgs args{.dtype = x.dtype,
                .width = x.cols,
                .x = Rows(x),
                .residual = Rows(residual),
                .dy = Rows(dy),
                .dx = Rows(dx)};
  args.inv_rms = Rows(inv_rms);
  args.gain = checked_gain(gain, x.cols);
  for_row_blocks(stream, x.rows, x.cols, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(backward_input_rows)(args, begin, end);
  });
}

std::size_t rms_norm_scratch_bytes(int64_t n, int64_t d) {
  const int64_t most_chunks = std::min(kMaxChunks, (n + kMinChunk - 1) / kMinChunk);
  return Arena::rounded(static_cast<std::size_t>(most_chunks * d) * sizeof(float));
}

void rms_norm_backward_gain(Stream& stream, const Tensor& dgain, const Tensor& dy, const Tensor& x,
                            const Tensor& inv_rms) {
  check_same_shape(dy, x);
  check_same_dtype(x, dy);
  check_inv_rms(inv_rms, x);
  RED_CHECK(dgain.rows == x.cols && dgain.cols == 1 && dgain.row_stride == 1, "dgain ({}, {}) for width {}",
            dgain.rows, dgain.cols, x.cols);
  if (x.rows == 0) return;
  const NormArgs args{
      .dtype = x.dtype, .width = x.cols, .x = Rows(x), .dy = Rows(dy), .inv_rms = Rows(inv_rms)};

  // Chunks of rows are summed on their own and then added in order; the chunks depend on n alone.
  const int64_t chunk = std::max(kMinChunk, (x.rows + kMaxChunks - 1) / kMaxChunks);
  const int64_t num_chunks = (x.rows + chunk - 1) / chunk;
  const ArenaScope scope(stream.scratch());
  const Tensor partials = stream.scratch().allocate<float>(num_chunks, x.cols);
  auto* partial = partials.as<float>();
  stream.parallel_for(num_chunks, [&](int64_t i) {
    HWY_DYNAMIC_DISPATCH(backward_gain_rows)
    (args, i * chunk, std::min(x.rows, (i + 1) * chunk), partial + i * x.cols);
  });
  auto* out = dgain.as<float>();
  for (int64_t i = 0; i < num_chunks; ++i) {
    for (int64_t j = 0; j < x.cols; ++j) out[j] += partial[i * x.cols + j];
  }
}

}  // namespace red::ops
#endif  // HWY_ONCE
