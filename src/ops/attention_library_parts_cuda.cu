// What cuDNN's attention is given and gives back, in our shapes: passes bound by bytes, small beside
// attention.
#include "ops/attention_library_parts.hpp"
#include "ops/cuda_launch.cuh"
#include "ops/cuda_rows.cuh"

namespace red::ops {
namespace {

constexpr unsigned kThreads = 256;

__global__ void ragged_kernel(int32_t* lengths, int32_t* starts, const int32_t* q_offsets,
                              const int32_t* k_offsets, int64_t num_sequences, RaggedMatrices matrices) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i > num_sequences) return;
  if (i < num_sequences) {
    lengths[i] = q_offsets[i + 1] - q_offsets[i];
    lengths[num_sequences + i] = k_offsets[i + 1] - k_offsets[i];
  }
#pragma unroll
  for (int m = 0; m < kMostRaggedMatrices; ++m) {
    if (m == matrices.count) break;
    const int64_t token = matrices.of_keys[m] ? k_offsets[i] : q_offsets[i];
    starts[m * (num_sequences + 1) + i] = static_cast<int32_t>(token * matrices.row_stride[m]);
  }
}

/// Grid: positions, heads, sequences.
template <bool kToLse>
__global__ void statistics_kernel(float* lse, int64_t lse_stride, float* statistics, int64_t longest,
                                  const int32_t* q_offsets) {
  const int64_t position = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x, head = blockIdx.y;
  const int32_t begin = q_offsets[blockIdx.z], end = q_offsets[blockIdx.z + 1];
  if (position >= min(longest, static_cast<int64_t>(end - begin))) return;
  float& ours = lse[head * lse_stride + begin + position];
  float& theirs = statistics[(static_cast<int64_t>(blockIdx.z) * gridDim.y + head) * longest + position];
  if (kToLse) {
    ours = theirs;
  } else {
    theirs = ours;
  }
}

template <bool kToLse>
void convert(Stream& stream, const Tensor& lse, const Tensor& statistics, const int32_t* q_offsets) {
  RED_CHECK(lse.rows > 0 && statistics.rows % lse.rows == 0 && statistics.contiguous(),
            "statistics ({}, {}) for {} heads", statistics.rows, statistics.cols, lse.rows);
  const dim3 grid(static_cast<unsigned>(pieces(statistics.cols, kThreads)), static_cast<unsigned>(lse.rows),
                  static_cast<unsigned>(statistics.rows / lse.rows));
  launch(stream, statistics_kernel<kToLse>, grid, kThreads, lse.as<float>(), lse.row_stride,
         statistics.as<float>(), statistics.cols, q_offsets);
}

__global__ void undo_head_norm_kernel(RowsOf<bf16> out, RowsOf<const bf16> o, RowsOf<const float> inv_rms,
                                      int64_t rows, int64_t cols, int64_t cols_of_scale) {
  const int64_t col = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (col >= cols) return;
  for (int64_t row = blockIdx.y; row < rows; row += gridDim.y)
    out(row, col) = rounded_to<bf16>(static_cast<float>(o(row, col)) / inv_rms(row, col / cols_of_scale));
}

}  // namespace

void ragged_sequences(Stream& stream, const Tensor& lengths, const Tensor& starts, const int32_t* q_offsets,
                      const int32_t* k_offsets, const RaggedMatrices& matrices) {
  RED_CHECK(lengths.rows == 2 && starts.rows == matrices.count && starts.cols == lengths.cols + 1 &&
                matrices.count <= kMostRaggedMatrices && lengths.contiguous() && starts.contiguous(),
            "lengths ({}, {}), starts ({}, {}) of {} matrices", lengths.rows, lengths.cols, starts.rows,
            starts.cols, matrices.count);
  launch(stream, ragged_kernel, static_cast<unsigned>(pieces(starts.cols, kThreads)), kThreads,
         lengths.as<int32_t>(), starts.as<int32_t>(), q_offsets, k_offsets, lengths.cols, matrices);
}

void lse_from_statistics(Stream& stream, const Tensor& lse, const Tensor& statistics,
                         const int32_t* q_offsets) {
  convert<true>(stream, lse, statistics, q_offsets);
}

void statistics_from_lse(Stream& stream, const Tensor& statistics, const Tensor& lse,
                         const int32_t* q_offsets) {
  convert<false>(stream, lse, statistics, q_offsets);
}

void undo_head_norm(Stream& stream, const Tensor& out, const Tensor& o, const Tensor& inv_rms,
                    int64_t num_heads) {
  RED_CHECK(out.rows == o.rows && out.cols == o.cols && inv_rms.rows == o.rows && o.cols % num_heads == 0 &&
                (inv_rms.cols == 1 || inv_rms.cols == num_heads),
            "out ({}, {}), o ({}, {}), inv_rms ({}, {}), {} heads", out.rows, out.cols, o.rows, o.cols,
            inv_rms.rows, inv_rms.cols, num_heads);
  const int64_t cols_of_scale = o.cols / inv_rms.cols;
  const dim3 grid(static_cast<unsigned>(pieces(o.cols, kThreads)), blocks_for(o.rows));
  launch(stream, undo_head_norm_kernel, grid, kThreads, RowsOf<bf16>(out), RowsOf<const bf16>(o),
         RowsOf<const float>(inv_rms), o.rows, o.cols, cols_of_scale);
}

}  // namespace red::ops
