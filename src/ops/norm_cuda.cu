// RMSNorm on a GPU. A block takes one row of d columns at a time, from memory once: the second look at it
// finds it in the L1 or L2 cache. Bound by bytes: 2 d elements a row forward, 4 d with a branch added, 3 d or
// 4 d backward, 2 d for the gain. Shapes: n rows, d columns; see norm.hpp.
#include "ops/blocks.hpp"
#include "ops/cuda_reduce.cuh"
#include "ops/cuda_rows.cuh"
#include "ops/norm.hpp"

namespace red::ops {
namespace {

template <class T>
struct NormArgs {
  int64_t rows, width;
  RowsOf<const T> x;
  RowsOf<float> inv_rms;  // (n, 1)
  const float* gain;      // (d)
  float epsilon = 0.0F;
  RowsOf<T> y = {};
};

// y = x inv_rms gain; what a thread reads of x is what it wrote there.
template <int kN, class T>
__device__ void scale_row(T* y, const T* x, float inv_rms, const float* gain, int64_t width) {
  for_each_column<kN>(width, [&](auto lanes, int64_t col) {
    constexpr int n = decltype(lanes)::value;
    float v[n], g[n];
    load(v, x + col);
    load(g, gain + col);
#pragma unroll
    for (int i = 0; i < n; ++i) v[i] = v[i] * inv_rms * g[i];
    store(y + col, v);
  });
}

/// With a branch: x_out = x + branch first, and the norm is that of x_out as it is stored.
template <int kN, bool kBranch, class T>
__global__ void __launch_bounds__(256, 1)
    norm_kernel(NormArgs<T> a, RowsOf<const T> branch, RowsOf<T> x_out) {
  for (int64_t row = blockIdx.x; row < a.rows; row += gridDim.x) {
    const T* x = a.x.at(row);
    float squares = 0.0F;
    for_each_column<kN>(a.width, [&](auto lanes, int64_t col) {
      constexpr int n = decltype(lanes)::value;
      float v[n];
      load(v, x + col);
      if constexpr (kBranch) {
        float b[n];
        load(b, branch.at(row, col));
#pragma unroll
        for (int i = 0; i < n; ++i) v[i] = rounded_to<T>(v[i] + b[i]);
        store(x_out.at(row, col), v);
      }
#pragma unroll
      for (int i = 0; i < n; ++i) squares += v[i] * v[i];
    });
    const float inv_rms = 1.0F / sqrtf(block_sum(squares) / static_cast<float>(a.width) + a.epsilon);
    if (threadIdx.x == 0) a.inv_rms(row) = inv_rms;
    scale_row<kN>(a.y.at(row), kBranch ? x_out.at(row) : x, inv_rms, a.gain, a.width);
  }
}

template <int kN, class T>
__global__ void __launch_bounds__(256) recompute_kernel(NormArgs<T> a) {
  for (int64_t row = blockIdx.x; row < a.rows; row += gridDim.x)
    scale_row<kN>(a.y.at(row), a.x.at(row), a.inv_rms(row), a.gain, a.width);
}

// With n = x inv_rms and dn = dy gain: dx = residual + inv_rms (dn - n mean(n dn)).
template <int kN, class T>
__global__ void __launch_bounds__(256)
    backward_input_kernel(NormArgs<T> a, RowsOf<T> dx, RowsOf<const T> residual, RowsOf<const T> dy) {
  for (int64_t row = blockIdx.x; row < a.rows; row += gridDim.x) {
    float dot = 0.0F;
    for_each_column<kN>(a.width, [&](auto lanes, int64_t col) {
      constexpr int n = decltype(lanes)::value;
      float x[n], d[n], g[n];
      load(x, a.x.at(row, col));
      load(d, dy.at(row, col));
      load(g, a.gain + col);
#pragma unroll
      for (int i = 0; i < n; ++i) dot += d[i] * g[i] * x[i];
    });
    const float inv_rms = a.inv_rms(row);
    const float along = block_sum(dot) * inv_rms / static_cast<float>(a.width) * inv_rms * inv_rms;
    for_each_column<kN>(a.width, [&](auto lanes, int64_t col) {
      constexpr int n = decltype(lanes)::value;
      float x[n], d[n], g[n], past[n] = {};
      load(x, a.x.at(row, col));
      load(d, dy.at(row, col));
      load(g, a.gain + col);
      if (residual.data != nullptr) load(past, residual.at(row, col));
#pragma unroll
      for (int i = 0; i < n; ++i) d[i] = past[i] + (d[i] * g[i] * inv_rms - x[i] * along);
      store(dx.at(row, col), d);
    });
  }
}

constexpr int64_t kMinChunk = 128, kMaxChunks = 64;  // of rows, in sums over tokens
constexpr int kRowWarps = 8;

// partials (chunks, d): a block sums a chunk of rows for 32 kN columns, warps taking turns, then its warps in
// order.
template <int kN, class T>
__global__ void __launch_bounds__(kRowWarps* kWarp)
    backward_gain_kernel(float* partials, NormArgs<T> a, RowsOf<const T> dy, int64_t chunk) {
  constexpr int tile = kWarp * kN;
  __shared__ float of_warp[kRowWarps][tile];
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  const int64_t first_col = static_cast<int64_t>(blockIdx.x) * tile, col = first_col + lane * kN;
  const int64_t begin = blockIdx.y * chunk, end = min(a.rows, begin + chunk);
  float sum[kN] = {};
  for (int64_t row = begin + warp; row < end && col < a.width; row += kRowWarps) {
    float x[kN], d[kN];
    load_some(x, a.x.at(row, col), a.width - col);
    load_some(d, dy.at(row, col), a.width - col);
    const float inv_rms = a.inv_rms(row);
#pragma unroll
    for (int i = 0; i < kN; ++i) sum[i] += d[i] * (x[i] * inv_rms);
  }
#pragma unroll
  for (int i = 0; i < kN; ++i) of_warp[warp][lane * kN + i] = sum[i];
  __syncthreads();
  for (int64_t i = threadIdx.x; i < tile && first_col + i < a.width; i += blockDim.x) {
    float total = 0.0F;
    for (int w = 0; w < kRowWarps; ++w) total += of_warp[w][i];
    partials[blockIdx.y * a.width + first_col + i] = total;
  }
}

// dgain (d) += partials (chunks, d), in order
__global__ void add_partials_kernel(float* dgain, const float* partials, int64_t chunks, int64_t width) {
  const int64_t col = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (col >= width) return;
  float sum = dgain[col];
  for (int64_t chunk = 0; chunk < chunks; ++chunk) sum += partials[chunk * width + col];
  dgain[col] = sum;
}

void check_inv_rms(const Tensor& inv_rms, const Tensor& x) {
  RED_CHECK(inv_rms.rows == x.rows && inv_rms.cols == 1 && inv_rms.dtype == DType::fp32,
            "({}, {}) {} for {} rows", inv_rms.rows, inv_rms.cols, name_of(inv_rms.dtype), x.rows);
}

/// The gain, or its gradient: d values without gaps.
float* checked_gain(const Tensor& gain, int64_t width) {
  RED_CHECK(gain.rows == width && gain.cols == 1 && gain.row_stride == 1, "({}, {}) for width {}", gain.rows,
            gain.cols, width);
  return gain.as<float>();
}

/// As one row: what the kernels read of it.
Tensor as_row(const Tensor& gain) {
  return {gain.data, 1, gain.rows, gain.rows, gain.dtype};
}

template <class T>
NormArgs<T> norm_args(const Tensor& x, const Tensor& inv_rms, const Tensor& gain) {
  return {x.rows, x.cols, RowsOf<const T>(x), RowsOf<float>(inv_rms), checked_gain(gain, x.cols)};
}

unsigned threads_of_row(int64_t width, int lanes) {
  return threads_for(pieces(width, lanes));
}

template <bool kBranch>
void run_norm(Stream& stream, const Tensor& x_out, const Tensor& y, const Tensor& inv_rms, const Tensor& x,
              const Tensor& branch, const Tensor& gain, float epsilon) {
  const auto run = [&](auto element, auto lanes) {
    using T = decltype(element);
    constexpr int n = decltype(lanes)::value;
    NormArgs<T> args = norm_args<T>(x, inv_rms, gain);
    args.epsilon = epsilon;
    args.y = RowsOf<T>(y);
    launch(stream, norm_kernel<n, kBranch, T>, blocks_for(x.rows), threads_of_row(x.cols, n), args,
           RowsOf<const T>(branch), RowsOf<T>(x_out));
  };
  with_lanes(x.dtype, run, x, branch, x_out, y, as_row(gain));
}

}  // namespace

void rms_norm(Stream& stream, const Tensor& y, const Tensor& inv_rms, const Tensor& x, const Tensor& gain,
              float epsilon) {
  check_same_shape(y, x);
  check_same_dtype(x, y);
  check_inv_rms(inv_rms, x);
  run_norm<false>(stream, {}, y, inv_rms, x, {}, gain, epsilon);
}

void add_rms_norm(Stream& stream, const Tensor& x_out, const Tensor& y, const Tensor& inv_rms,
                  const Tensor& x, const Tensor& branch, const Tensor& gain, float epsilon) {
  check_same_shape(y, x);
  check_same_shape(x_out, x);
  check_same_shape(branch, x);
  check_same_dtype(x, x_out, y, branch);
  check_inv_rms(inv_rms, x);
  run_norm<true>(stream, x_out, y, inv_rms, x, branch, gain, epsilon);
}

void rms_norm_recompute(Stream& stream, const Tensor& y, const Tensor& x, const Tensor& inv_rms,
                        const Tensor& gain) {
  check_same_shape(y, x);
  check_same_dtype(x, y);
  check_inv_rms(inv_rms, x);
  const auto run = [&](auto element, auto lanes) {
    using T = decltype(element);
    constexpr int n = decltype(lanes)::value;
    NormArgs<T> args = norm_args<T>(x, inv_rms, gain);
    args.y = RowsOf<T>(y);
    launch(stream, recompute_kernel<n, T>, blocks_for(x.rows), threads_of_row(x.cols, n), args);
  };
  with_lanes(x.dtype, run, x, y, as_row(gain));
}

void rms_norm_backward_input(Stream& stream, const Tensor& dx, const Tensor& residual, const Tensor& dy,
                             const Tensor& x, const Tensor& inv_rms, const Tensor& gain) {
  check_same_shape(dx, x);
  check_same_shape(dy, x);
  if (!residual.empty()) check_same_shape(residual, x);
  check_same_dtype(x, dx, residual, dy);
  check_inv_rms(inv_rms, x);
  const auto run = [&](auto element, auto lanes) {
    using T = decltype(element);
    constexpr int n = decltype(lanes)::value;
    launch(stream, backward_input_kernel<n, T>, blocks_for(x.rows), threads_of_row(x.cols, n),
           norm_args<T>(x, inv_rms, gain), RowsOf<T>(dx), RowsOf<const T>(residual), RowsOf<const T>(dy));
  };
  with_lanes(x.dtype, run, x, dx, residual, dy, as_row(gain));
}

std::size_t rms_norm_scratch_bytes(int64_t n, int64_t d) {
  const int64_t most_chunks = std::min(kMaxChunks, pieces(n, kMinChunk));
  return Arena::rounded(static_cast<std::size_t>(most_chunks * d) * sizeof(float));
}

void rms_norm_backward_gain(Stream& stream, const Tensor& dgain, const Tensor& dy, const Tensor& x,
                            const Tensor& inv_rms) {
  check_same_shape(dy, x);
  check_same_dtype(x, dy);
  check_inv_rms(inv_rms, x);
  float* out = checked_gain(dgain, x.cols);
  if (x.rows == 0) return;
  const int64_t chunk = std::max(kMinChunk, pieces(x.rows, kMaxChunks)), num_chunks = pieces(x.rows, chunk);
  const ArenaScope scope(stream.scratch());
  auto* partials = stream.scratch().allocate<float>(num_chunks, x.cols).as<float>();
  const auto run = [&](auto element, auto lanes) {
    using T = decltype(element);
    constexpr int n = decltype(lanes)::value;
    const dim3 grid(static_cast<unsigned>(pieces(x.cols, kWarp * n)), static_cast<unsigned>(num_chunks));
    launch(stream, backward_gain_kernel<n, T>, grid, kRowWarps * kWarp, partials,
           norm_args<T>(x, inv_rms, dgain), RowsOf<const T>(dy), chunk);
  };
  with_lanes(x.dtype, run, x, dy);
  launch(stream, add_partials_kernel, static_cast<unsigned>(pieces(x.cols, 128)), 128, out, partials,
         num_chunks, x.cols);
}

}  // namespace red::ops
