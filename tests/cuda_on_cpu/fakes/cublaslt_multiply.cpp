#include <cuda_bf16.h>

#include <bit>
#include <vector>

#include "fakes/cublaslt_state.hpp"
#include "runtime/options.hpp"

namespace cuda_on_cpu {
namespace {

std::size_t index(const Layout& layout, uint64_t row, uint64_t col) {
  return col * static_cast<uint64_t>(layout.row_stride) + row;
}

float element(const Operand& m, uint64_t row, uint64_t col) {
  const std::size_t i = index(m.layout, row, col);
  return m.layout.type == CUDA_R_16BF ? __bfloat162float(static_cast<const __nv_bfloat16*>(m.data)[i])
                                      : static_cast<const float*>(m.data)[i];
}

void set_element(void* data, const Layout& layout, uint64_t row, uint64_t col, float value) {
  const std::size_t i = index(layout, row, col);
  if (layout.type == CUDA_R_16BF) {
    static_cast<__nv_bfloat16*>(data)[i] = __float2bfloat16(value);
  } else {
    static_cast<float*>(data)[i] = value;
  }
}

/// To 10 bits of mantissa, ties away from zero, as tensor cores take fp32.
float rounded_to_tf32(float value) {
  return std::bit_cast<float>((std::bit_cast<uint32_t>(value) + 0x1000U) & 0xFFFFE000U);
}

/// (outer, inner), row-major: rows of op(a), or columns of op(b).
std::vector<float> packed(const Operand& m, bool inner_is_row, uint64_t outer, uint64_t inner, bool tf32) {
  std::vector<float> values(outer * inner);
  for (uint64_t i = 0; i < outer; ++i) {
    for (uint64_t j = 0; j < inner; ++j) {
      const float value = inner_is_row ? element(m, j, i) : element(m, i, j);
      values[i * inner + j] = tf32 ? rounded_to_tf32(value) : value;
    }
  }
  return values;
}

/// In eight partial sums: what a compiler makes vectors of.
float dot(const float* a, const float* b, uint64_t count) {
  float lanes[8] = {};
  uint64_t i = 0;
  for (; i + 8 <= count; i += 8) {
    for (uint64_t lane = 0; lane < 8; ++lane) lanes[lane] += a[i + lane] * b[i + lane];
  }
  float sum = 0.0F;
  for (; i < count; ++i) sum += a[i] * b[i];
  for (const float lane : lanes) sum += lane;
  return sum;
}

float rounded_to_bf16(float value) {
  return __bfloat162float(__float2bfloat16(value));
}

float sum_of_rounded_halves(const float* a, const float* b, uint64_t count) {
  const uint64_t half = count / 2;
  return rounded_to_bf16(dot(a, b, half)) + rounded_to_bf16(dot(a + half, b + half, count - half));
}

/// Each algorithm cuts the sum elsewhere; the first does not.
float sum_in_parts(const float* a, const float* b, uint64_t count, uint64_t algorithm) {
  if (options().algorithms == AlgorithmSums::equal || algorithm == 0) return dot(a, b, count);
  const uint64_t first = count * algorithm / 4;
  return dot(a, b, first) + dot(a + first, b + first, count - first);
}

}  // namespace

void multiply(const Product& product, const Algorithm& algorithm, float alpha, const Operand& a,
              const Operand& b, float beta, const Operand& c, void* d, const Layout& d_layout) {
  const bool ta = product.transpose_a == CUBLAS_OP_T, tb = product.transpose_b == CUBLAS_OP_T;
  const bool tf32 = product.compute == CUBLAS_COMPUTE_32F_FAST_TF32 && a.layout.type == CUDA_R_32F;
  const bool rounds_parts = algorithm.adds_in_output_type && d_layout.type == CUDA_R_16BF;
  const uint64_t m = d_layout.rows, n = d_layout.cols, k = ta ? a.layout.rows : a.layout.cols;
  const std::vector<float> rows = packed(a, ta, m, k, tf32), cols = packed(b, !tb, n, k, tf32);
  for (uint64_t j = 0; j < n; ++j) {
    for (uint64_t i = 0; i < m; ++i) {
      const float *row = &rows[i * k], *col = &cols[j * k];
      float value = alpha * (rounds_parts ? sum_of_rounded_halves(row, col, k)
                                          : sum_in_parts(row, col, k, algorithm.number));
      if (beta != 0.0F) value += beta * element(c, i, j);
      set_element(d, d_layout, i, j, value);
    }
  }
}

}  // namespace cuda_on_cpu
